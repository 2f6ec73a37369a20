from PIL import Image

from mr_core.datasets.findings import pixel_digest
from mr_core.datasets.validate import pack_archive


def report_of(path, tmp_path):
    return pack_archive(path, tmp_path / "pack.zip")


def test_names_duplicates_and_leaks_by_their_pixels(write_zip, both, tmp_path, encode, noise):
    same = noise(77)
    copies = {
        "train/cat/x.png": encode(same),
        "train/cat/y.webp": encode(same, "WEBP", lossless=True),
        "train/dog/z.png": encode(same, compress_level=9),
        "test/cat/leak.png": encode(same),
    }
    report = report_of(write_zip(both | copies), tmp_path)
    assert report.duplicates.groups == [["train/cat/x.png", "train/cat/y.webp", "train/dog/z.png"]]
    assert (report.duplicates.n_groups, report.duplicates.n_images) == (1, 3)
    assert report.duplicates.n_groups_of_several_classes == 1
    assert (report.leakage.n_images, report.leakage.images) == (1, ["test/cat/leak.png"])
    assert any("1 of 5 test images are in the training split" in warning for warning in report.warnings)
    assert any("carry different labels" in warning for warning in report.warnings)


def test_measures_images(write_zip, tree, png, tmp_path):
    files = tree({"cat": 3, "dog": 3}) | {"cat/big.png": png(9, size=(600, 700)), "cat/grey.png": png(8, mode="L")}
    report = report_of(write_zip(files), tmp_path)
    assert (report.images.width.min, report.images.width.median, report.images.width.max) == (8, 8, 600)
    assert report.images.height.max == 700
    assert report.images.modes == {"L": 1, "RGB": 7}
    assert report.n_reduced == 1


def test_warns_of_imbalance_and_of_tiny_and_untested_classes(write_zip, tree, tmp_path):
    report = report_of(write_zip(tree({"cat": 60, "dog": 2})), tmp_path)
    words = " ".join(report.warnings)
    assert "imbalanced: 48 training images in the largest, 2 in the smallest" in words
    assert "fewer than 10 training images: 'dog'" in words
    assert "without a test image: 'dog'" in words
    assert "there was no test split" in words


def test_a_plain_dataset_warns_of_nothing(write_zip, tree, tmp_path):
    files = tree({"train/cat": 12, "train/dog": 12}) | tree({"test/cat": 2, "test/dog": 2}, seed=500)
    report = report_of(write_zip(files), tmp_path)
    assert (report.status, report.warnings, report.n_corrupt, report.n_ignored) == ("ready", [], 0, 0)


def test_lists_are_cut_and_totals_are_not(write_zip, both, tmp_path):
    damaged = {f"train/cat/bad{i:03}.png": b"x" for i in range(120)}
    report = report_of(write_zip(both | damaged), tmp_path)
    assert (report.n_corrupt, len(report.corrupt)) == (120, 100)
    assert report.counts["cat"]["train"] == 3


def test_digest_tells_shapes_apart(noise):
    image = noise(size=(8, 6))
    reshaped = Image.frombytes("RGB", (6, 8), image.tobytes())
    assert pixel_digest(image) == pixel_digest(image.copy())
    assert pixel_digest(image) != pixel_digest(reshaped)
    assert pixel_digest(image.convert("L")) != pixel_digest(image)

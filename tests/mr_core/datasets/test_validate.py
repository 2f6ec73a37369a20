import struct
import subprocess
import sys
import textwrap
import zipfile

import pytest
from PIL import Image

from mr_core.datasets.dataset import ImageDataset
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.validate import pack_archive
from mr_core.errors import JobCancelled, OneClass


@pytest.fixture
def pack(tmp_path):
    def run(path, **options):
        return pack_archive(path, tmp_path / "pack.zip", **options)

    return run


def test_packs_zip_and_tar_alike(write_zip, write_tar, both, pack, tmp_path):
    report = pack(write_zip(both))
    assert (report.status, report.error, report.splits) == ("ready", None, {"train": 6, "test": 4})
    from_zip = (tmp_path / "pack.zip").read_bytes()
    assert pack(write_tar(both)).counts == report.counts
    assert (tmp_path / "pack.zip").read_bytes() == from_zip


def test_each_bad_file_is_named_with_its_reason_and_the_rest_used(write_zip, both, pack, encode, noise):
    several = {"save_all": True, "append_images": [noise(1)]}
    jpeg = encode(noise(3, size=(64, 64)), "JPEG")
    bad = {
        "train/cat/empty.png": b"",
        "train/cat/cut.jpg": jpeg[: len(jpeg) // 2],
        "train/cat/text.png": b"hello there",
        "train/cat/moving.webp": encode(noise(), "WEBP", **several),
        "train/cat/moving.png": encode(noise(), "PNG", **several),
        "train/cat/moving.gif": encode(noise(), "GIF", **several),
        "test/dog/paint.bmp": encode(noise(), "BMP"),
    }
    report = pack(write_zip(both | bad))
    assert report.status == "ready"
    reasons = {entry.name: entry.reason for entry in report.corrupt}
    assert set(reasons) == set(bad)
    assert reasons["train/cat/empty.png"] == "the file is empty"
    assert "truncated" in reasons["train/cat/cut.jpg"]
    assert "animated (2 frames)" in reasons["train/cat/moving.webp"]
    assert "begins with a bmp image" in reasons["test/dog/paint.bmp"]
    assert report.splits == {"train": 6, "test": 4}
    assert any("7 files cannot be read" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("damaged", "code"),
    [
        (["train/cat/0.png", "train/cat/1.png"], "class_too_small"),
        ([f"train/cat/{i}.png" for i in range(3)], "empty_class"),
        ([f"{split}/cat/{i}.png" for split, n in (("train", 3), ("test", 2)) for i in range(n)], "one_class"),
    ],
)
def test_invalid_where_too_little_is_left(write_zip, both, pack, tmp_path, damaged, code):
    report = pack(write_zip(both | dict.fromkeys(damaged, b"damaged")))
    assert (report.status, report.error.code) == ("invalid", code)
    assert "cat/0.png': not a jpeg, png or webp image" in report.error.detail
    assert list(tmp_path.glob("pack*")) == []


def test_invalid_where_nothing_can_be_read(write_zip, both, pack):
    report = pack(write_zip(dict.fromkeys(both, b"damaged")))
    assert (report.status, report.error.code) == ("invalid", "invalid_dataset")
    assert report.error.detail.startswith("no image was found that can be used. 10 of 10 files cannot be used")


def test_invalid_where_one_of_three_classes_lost_every_image(write_zip, tree, pack):
    report = pack(write_zip(tree({"a": 3, "b": 3, "c": 3}) | {f"b/{i}.png": b"x" for i in range(3)}))
    assert (report.status, report.error.code) == ("invalid", "empty_class")


def test_a_bomb_that_shows_while_inflating_makes_it_invalid(write_zip, both, pack, tmp_path):
    path = write_zip(both | {"train/cat/zeros.png": bytes(5_000_000)})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 1000)
    struct.pack_into("<I", data, struct.unpack_from("<I", data, at + 42)[0] + 22, 1000)
    path.write_bytes(data)
    report = pack(path)
    assert (report.status, report.error.code) == ("invalid", "archive_bomb")
    assert not (tmp_path / "pack.zip").exists()


def test_raises_what_the_directory_shows(write_zip, tree, pack):
    with pytest.raises(OneClass):
        pack(write_zip(tree({"cat": 3})))


def test_equal_names_after_the_suffix_is_gone_stay_apart(write_zip, tree, pack, png, encode, noise, tmp_path):
    more = {"cat/0.jpg": encode(noise(50), "JPEG"), "cat/sub/0.png": png(51), "cat/0-2.png": png(52)}
    pack(write_zip(tree({"cat": 3, "dog": 3}) | more))
    dataset = ImageDataset.open(tmp_path / "pack.zip")
    names = dataset.names("train") + dataset.names("test")
    assert len(set(names)) == 9


def test_packs_pixels_alone(write_zip, both, pack, tmp_path, encode, noise):
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    polyglot = encode(noise(60), "JPEG", exif=exif) + b"PK\x03\x04 and a program"
    assert pack(write_zip(both | {"train/cat/odd.jpg": polyglot})).n_corrupt == 0
    data = (tmp_path / "pack.zip").read_bytes()
    assert b"where I live" not in data
    assert b"and a program" not in data


def test_equal_input_gives_equal_bytes_and_a_pack_of_a_pack_is_the_same(write_zip, both, tmp_path):
    path = write_zip(both)
    for name in ("a.zip", "b.zip"):
        pack_archive(path, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    pack_archive(tmp_path / "a.zip", tmp_path / "c.zip")
    assert (tmp_path / "c.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()


def test_tells_progress_and_stops_when_asked(write_zip, both, pack, tmp_path):
    seen = []
    with pytest.raises(JobCancelled):
        pack(write_zip(both), on_progress=lambda *step: seen.append(step), should_stop=lambda: len(seen) == 4)
    assert seen == [(1, 10), (2, 10), (3, 10), (4, 10)]
    assert list(tmp_path.glob("pack*")) == []


def test_holds_to_the_limits_given(write_zip, both, pack):
    report = pack(write_zip(both), limits=ArchiveLimits(image_pixels=47))
    assert (report.status, report.n_corrupt) == ("invalid", 10)
    assert "8 x 6 pixels, the limit is 47" in report.corrupt[0].reason
    assert report.limits.image_pixels == 47


def test_memory_does_not_grow_with_the_images(tmp_path, encode):
    """2,000 images of 64 KB each when decoded, 128 MB in all, within 30 MB over what the imports take."""
    same = encode(Image.new("L", (256, 256), 7))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for i in range(2000):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", same)
    script = f"""
        import resource
        from pathlib import Path
        from mr_core.datasets.dataset import ImageDataset
        from mr_core.datasets.validate import pack_archive
        folder = Path({str(tmp_path)!r})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = pack_archive(folder / "data.zip", folder / "pack.zip")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert report.status == "ready" and report.splits == {{"train": 1600, "test": 400}}
        print((after - before) / 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=240
    )
    assert float(done.stdout) < 30

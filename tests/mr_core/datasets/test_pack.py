import zipfile

import pytest

from mr_core.datasets.pack import is_pack, pack_entries, read_packed, write_pack
from mr_core.errors import ArchiveError, UnreadableImage


def pack_two(path, noise):
    with write_pack(path) as pack:
        pack.add(noise(1), split="train", class_name="dog", name="b.png")
        pack.add(noise(0, mode="L"), split="train", class_name="cat", name="a.png")


def test_reads_back_every_pixel(tmp_path, noise):
    pack_two(tmp_path / "p.zip", noise)
    entries = pack_entries(tmp_path / "p.zip")
    assert [entry.path for entry in entries] == ["train/cat/a.png", "train/dog/b.png"]
    with (tmp_path / "p.zip").open("rb") as file:
        images = [read_packed(file, entry) for entry in entries]
    assert [image.mode for image in images] == ["L", "RGB"]
    assert images[1].tobytes() == noise(1).tobytes()


def test_equal_images_give_equal_bytes_and_any_zip_tool_reads_them(tmp_path, noise):
    for name in ("p.zip", "q.zip"):
        pack_two(tmp_path / name, noise)
    assert (tmp_path / "p.zip").read_bytes() == (tmp_path / "q.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert archive.testzip() is None
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_writes_no_metadata(tmp_path, noise):
    image = noise()
    image.info["comment"] = "a secret"
    with write_pack(tmp_path / "p.zip") as pack:
        pack.add(image, split="train", class_name="cat", name="a.png")
    assert b"secret" not in (tmp_path / "p.zip").read_bytes()


def test_leaves_nothing_after_an_error_or_a_discard(tmp_path, noise):
    def fail():
        with write_pack(tmp_path / "p.zip"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with write_pack(tmp_path / "p.zip") as pack:
        pack.add(noise(), split="train", class_name="cat", name="a.png")
        pack.discard()
    assert list(tmp_path.iterdir()) == []


def test_another_zip_is_no_pack(write_zip, both):
    path = write_zip(both)
    assert not is_pack(path)
    with pytest.raises(ArchiveError, match="not a packed dataset"):
        pack_entries(path)


def test_a_forged_pack_is_damaged(tmp_path, write_zip, both):
    path = write_zip(both)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"mr dataset pack 1"
    with pytest.raises(ArchiveError, match="unexpected entry"):
        pack_entries(path)


def test_damage_within_is_named(tmp_path, noise):
    pack_two(tmp_path / "p.zip", noise)
    entries = pack_entries(tmp_path / "p.zip")
    data = bytearray((tmp_path / "p.zip").read_bytes())
    data[entries[1].header_offset + 100] ^= 0xFF
    (tmp_path / "p.zip").write_bytes(data)
    with (tmp_path / "p.zip").open("rb") as file, pytest.raises(UnreadableImage, match=r"train/dog/b.png"):
        read_packed(file, entries[1])

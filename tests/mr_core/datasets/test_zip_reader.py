import struct
import zipfile

import pytest

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import ArchiveBomb, ArchiveError, ArchiveTooLarge, UnreadableImage, UnsafeArchive

LIMITS = ArchiveLimits()


def declare(path, n_bytes):
    """Change the inflated size that the directory and the local header of a one-entry zip declare."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 22, n_bytes)
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, n_bytes)
    path.write_bytes(data)


def read_all(path, limits=LIMITS):
    reader = ZipReader(path, limits)
    return dict(reader.contents([member.name for member in reader.members() if not member.is_folder]))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_stored_and_deflated(write_zip, method):
    files = {"a/1.png": b"one" * 100, "a/2.png": b"", "b/": b""}
    assert read_all(write_zip(files, method=method)) == {"a/1.png": b"one" * 100, "a/2.png": b""}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_other_compression(write_zip, method):
    with pytest.raises(ArchiveError, match="expected stored or deflated"):
        ZipReader(write_zip({"a/1.png": b"one"}, method=method), LIMITS)


def test_refuses_a_bomb_by_its_declared_sizes(write_zip):
    with pytest.raises(ArchiveBomb, match="100 to 1"):
        ZipReader(write_zip({"a/1.png": bytes(20_000_000)}), LIMITS)


@pytest.mark.parametrize("declared", [0, 10, 1_000_000])
def test_a_header_that_declares_too_little_does_not_hide_a_bomb(write_zip, declared):
    path = write_zip({"a/1.png": bytes(20_000_000)})
    declare(path, declared)
    with pytest.raises(ArchiveBomb, match=f"declares {declared} bytes and inflates to more"):
        read_all(path)


def test_a_header_that_declares_too_much_is_damage(write_zip):
    path = write_zip({"a/1.png": b"0123456789"})
    declare(path, 11)
    assert isinstance(read_all(path)["a/1.png"], UnreadableImage)


def test_a_blank_small_file_is_no_bomb(write_zip):
    assert read_all(write_zip({"a/1.png": bytes(500_000)}))["a/1.png"] == bytes(500_000)


def test_refuses_entries_that_share_their_bytes(write_zip):
    """The bomb that needs no lie: many directory entries for one compressed file."""
    path = write_zip({f"{i}.png": bytes(1000) for i in range(2)})
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)
    path.write_bytes(data)
    with pytest.raises(ArchiveBomb, match="shares its bytes"):
        ZipReader(path, LIMITS)


def test_refuses_a_zip_behind_something_else(write_zip):
    path = write_zip({"1.png": b"1"})
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(UnsafeArchive, match="come before the zip's first entry"):
        ZipReader(path, LIMITS)


@pytest.mark.parametrize("length", [30, 200, -10])
def test_a_truncated_zip_is_an_error(write_zip, length):
    path = write_zip({f"{i}.png": b"x" * 50 for i in range(5)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArchiveError, match="truncated"):
        ZipReader(path, LIMITS)


def test_refuses_encryption(write_zip):
    path = write_zip({"1.png": b"1"})
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        ZipReader(path, LIMITS)


@pytest.mark.parametrize("mode", [0o120777, 0o020644, 0o010644])
def test_refuses_links_devices_and_pipes(tmp_path, mode):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("1.png")
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeArchive, match="link or a device"):
        ZipReader(tmp_path / "a.zip", LIMITS)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_a_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", b"1")
        archive.writestr("1.png", b"2")
    with pytest.raises(UnsafeArchive, match="twice"):
        ZipReader(tmp_path / "a.zip", LIMITS)


def test_counts_entries_before_reading_the_directory(write_zip):
    path = write_zip({f"{i}.png": b"" for i in range(11)})
    with pytest.raises(ArchiveTooLarge, match="11 entries, the limit is 10"):
        ZipReader(path, ArchiveLimits(entries=10))


def test_limits_the_total(write_zip):
    path = write_zip({f"{i}.png": b"x" * 60 for i in range(2)})
    with pytest.raises(ArchiveTooLarge, match="unpacked the archive has 120 bytes"):
        ZipReader(path, ArchiveLimits(unpacked_bytes=100))


def test_a_damaged_entry_leaves_the_others_readable(write_zip):
    path = write_zip({"1.png": b"first" * 9, "2.png": b"second" * 9}, method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"first", b"worst", 1))
    contents = read_all(path)
    assert "CRC" in contents["1.png"].detail
    assert contents["2.png"] == b"second" * 9


def test_reads_utf8_names_without_the_flag(tmp_path):
    """As the Finder writes them."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("caf\u00e9/1.png", b"1")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for at, offset in ((0, 6), (data.rfind(b"PK\x01\x02"), 8)):
        struct.pack_into("<H", data, at + offset, 0)
    (tmp_path / "a.zip").write_bytes(data)
    assert read_all(tmp_path / "a.zip") == {"caf\u00e9/1.png": b"1"}

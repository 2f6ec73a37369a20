import gzip
import io
import tarfile

import pytest

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.tar_reader import TarReader
from mr_core.errors import ArchiveBomb, ArchiveError, ArchiveTooLarge, UnsafeArchive

LIMITS = ArchiveLimits()


def entry(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def names(path, limits=LIMITS):
    return [member.name for member in TarReader(path, limits).members()]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
@pytest.mark.parametrize("n_bytes", [0, 1, 511, 512, 513, 8192, 65536, 70_000])
def test_reads_files_of_any_length_around_the_blocks(write_tar, name, mode, n_bytes):
    files = {f"{i}.png": bytes([i]) * n_bytes for i in range(3)}
    reader = TarReader(write_tar(files, name, mode), LIMITS)
    assert [member.n_bytes for member in reader.members()] == [n_bytes] * 3
    assert dict(reader.contents(files)) == files


def test_reads_long_names(write_tar):
    long = "folder/" * 40 + "1.png"
    assert names(write_tar({long: b"1"})) == [long]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_refuses_links(write_tar, kind):
    with pytest.raises(UnsafeArchive, match="link to '/etc/passwd'"):
        names(write_tar({}, extra=(entry("1.png", kind, "/etc/passwd"),)))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_refuses_devices_and_pipes(write_tar, kind):
    with pytest.raises(UnsafeArchive, match="a device, a pipe"):
        names(write_tar({}, extra=(entry("1.png", kind),)))


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a\\evil.png"])
def test_refuses_names_that_lead_elsewhere(write_tar, name):
    with pytest.raises(UnsafeArchive):
        names(write_tar({name: b"1"}))


def test_refuses_a_bomb_while_inflating(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("1.png")
        info.size = 20_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(ArchiveBomb, match="100 to 1"):
        names(tmp_path / "a.tar.gz")


def test_limits_the_total(write_tar):
    with pytest.raises(ArchiveTooLarge, match="over 1000 bytes"):
        names(write_tar({"1.png": b"x" * 2000}), ArchiveLimits(unpacked_bytes=1000))


def test_limits_the_entries(write_tar):
    with pytest.raises(ArchiveTooLarge, match="more than 2 entries"):
        names(write_tar({f"{i}.png": b"" for i in range(3)}), ArchiveLimits(entries=2))


def test_refuses_a_header_of_megabytes(tmp_path):
    """tarfile would read an extended header whole before anything can be counted."""
    header = entry("pax", tarfile.XHDTYPE)
    header.size = 50_000_000
    (tmp_path / "a.tar").write_bytes(header.tobuf() + bytes(10_240))
    with pytest.raises(ArchiveError, match=r"has a header of 50000\d+ bytes"):
        names(tmp_path / "a.tar")


def test_refuses_a_sparse_file(tmp_path):
    (tmp_path / "a.tar").write_bytes(entry("1.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ArchiveError):
        names(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_archive_is_an_error(write_tar, name, kept):
    files = {f"{i}.png": bytes(range(256)) * 40 for i in range(20)}
    path = write_tar(files, name, "w" if name == "a.tar" else "w:gz")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ArchiveError, match="damaged or truncated"):
        names(path)


def test_does_not_stop_in_silence_at_a_damaged_header(write_tar):
    path = write_tar({f"{i}.png": b"x" * 512 for i in range(4)}, "a.tar", "w")
    data = bytearray(path.read_bytes())
    data[2048 + 150] ^= 0xFF  # the third header's checksum
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        names(path)


def test_gzip_of_something_else_is_an_error(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"hello" * 1000))
    with pytest.raises(ArchiveError, match="damaged"):
        names(tmp_path / "a.tar.gz")

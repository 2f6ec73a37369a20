import zipfile
from collections import Counter

from cli.digits import write_digits


def members(path):
    with zipfile.ZipFile(path) as archive:
        return [name.split("/") for name in archive.namelist()]


def test_all_digits_are_split_80_to_20_by_class(tmp_path):
    counts = Counter((split, digit) for split, digit, _ in members(write_digits(tmp_path / "d.zip")))
    assert sum(count for (split, _), count in counts.items() if split == "test") == 360
    assert sum(counts.values()) == 1797
    for digit in map(str, range(10)):
        total = counts["train", digit] + counts["test", digit]
        assert abs(counts["test", digit] / total - 0.2) < 0.01


def test_the_archive_is_the_same_each_time(tmp_path):
    first, second = (write_digits(tmp_path / name, per_class=5) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    assert len(members(first)) == 50

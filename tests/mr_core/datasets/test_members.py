import pytest

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import Member, NameGuard, is_system_path, is_text, named, safe_parts
from mr_core.errors import UnsafeArchive

LIMITS = ArchiveLimits()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.png", "leads out"),
        ("a/../../evil.png", "leads out"),
        ("/etc/passwd", "absolute"),
        ("C:/evil.png", "absolute"),
        ("c:evil.png", "absolute"),
        ("a\\..\\evil.png", "backslash"),
        ("a/b\0.png", "control character"),
        ("a/b\n.png", "control character"),
        ("a/\udcff.png", "not UTF-8"),
        ("a/" + "x" * 2000, "2002 bytes"),
    ],
)
def test_refuses_name(name, message):
    with pytest.raises(UnsafeArchive, match=message):
        safe_parts(name, LIMITS)


def test_drops_dots_that_lead_nowhere():
    assert safe_parts("./train//cat/./1.png", LIMITS) == ("train", "cat", "1.png")
    assert safe_parts("./", LIMITS) == ()


def test_dots_within_a_name_are_fine():
    assert safe_parts("a../..b/c...png", LIMITS) == ("a..", "..b", "c...png")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("cat/1.png", "cat/1.png", "twice"),
        ("cat/1.png", "./cat//1.png", "twice"),
        ("cat/1.png", "cat/1.PNG", "case"),
        ("cat/1.png", "Cat/2.png", "case"),
        ("caf\u00e9/1.png", "cafe\u0301/2.png", "accents"),
        ("cat", "cat/1.png", "twice"),
        ("cat/1.png", "cat", "twice"),
    ],
)
def test_refuses_collision(first, second, message):
    guard = NameGuard(LIMITS)
    guard.parts(first, is_folder=False)
    with pytest.raises(UnsafeArchive, match=message):
        guard.parts(second, is_folder=False)


def test_a_folder_may_come_after_its_files_and_again():
    guard = NameGuard(LIMITS)
    guard.parts("cat/1.png", is_folder=False)
    assert guard.parts("cat/", is_folder=True) == guard.parts("cat/", is_folder=True) == ("cat",)


@pytest.mark.parametrize(
    "path", ["__MACOSX/cat/._1.png", "cat/.DS_Store", "cat/Thumbs.db", ".git/config", "desktop.ini"]
)
def test_knows_what_systems_leave_behind(path):
    assert is_system_path(tuple(path.split("/")))


@pytest.mark.parametrize(
    ("name", "expected"), [("README", True), ("LICENSE", True), ("notes.txt", True), ("1.png", False)]
)
def test_knows_texts(name, expected):
    assert is_text(Member(name, (name,), 1, is_folder=False)) is expected


def test_names_a_few():
    assert named("abc", limit=2) == "'a', 'b' and 1 more"

"""The pages in docs/methods/ say what the specs say."""

from docs.generate import FOLDER, pages


def test_every_method_has_the_page_that_its_spec_gives():
    expected = dict(pages())
    found = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*.md")}
    assert sorted(found) == sorted(expected)
    stale = [name for name, text in expected.items() if found[name] != text]
    assert not stale, "run `make docs`"

import pytest
from starlette.requests import Request

from api.errors import NotAcceptable
from api.negotiation import best_media_type

OFFERED = ("application/json", "text/csv", "application/x-npz")


def _request(*accept):
    return Request({"type": "http", "headers": [(b"accept", value.encode()) for value in accept]})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], "application/json"),
        (["*/*"], "application/json"),
        (["text/*"], "text/csv"),
        (["TEXT/CSV"], "text/csv"),
        (["application/json;q=0.5, text/csv"], "text/csv"),
        (["application/*;q=0.1, application/x-npz"], "application/x-npz"),
        (["*/*, application/json;q=0"], "text/csv"),
        (["image/png", "text/csv; charset=utf-8; q=0.2"], "text/csv"),
        (["text/csv;q=x, */*;q=0.1"], "application/json"),
    ],
)
def test_the_most_liked_is_chosen(accept, chosen):
    assert best_media_type(_request(*accept), OFFERED) == chosen


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", ""])
def test_none_that_is_taken(accept):
    if accept == "":
        assert best_media_type(_request(accept), OFFERED) == OFFERED[0]
        return
    with pytest.raises(NotAcceptable, match="text/csv"):
        best_media_type(_request(accept), OFFERED)

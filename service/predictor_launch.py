"""Where the predictor is: one of the settings, or the embedded one, which `mr up` starts when somebody first asks."""

import fcntl
import time
from collections.abc import Collection
from pathlib import Path

import httpx

from service.errors import TransientError
from service.settings import Settings

TOKEN_HEADER = "X-MR-Predictor-Token"  # noqa: S105
_POLL_S = 0.1
_START_S = 90.0


def ensure_predictor(settings: Settings, *, timeout_s: float = _START_S, apart_from: Collection[str] = ()) -> str:
    """The address of a predictor that answers; starts the embedded one where none is set, and waits for it.

    Of several, one that is not in `apart_from`. Cheap once it runs. TransientError where none answers in time.
    """
    if settings.predictor_urls:
        return _answering(settings, apart_from)
    give_up_at = time.monotonic() + timeout_s
    wanted(settings.data_dir).touch()
    while (url := _embedded(settings)) is None:
        if not is_supervised(settings.data_dir):
            raise TransientError("no predictor runs: set MR_PREDICTOR_URLS, or use `mr up`, which starts its own")
        if time.monotonic() > give_up_at:
            raise TransientError(f"the predictor did not answer within {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    return url


def wanted(data_dir: Path) -> Path:
    """A file whose presence asks `mr up` for the predictor."""
    return data_dir / "predictor.wanted"


def address(data_dir: Path) -> Path:
    """The file in which `mr up` keeps the address of the predictor it started."""
    return data_dir / "predictor.address"


def lock(data_dir: Path) -> Path:
    """The file that the `mr up` of a data folder holds locked as long as it lives."""
    return data_dir / "up.lock"


def is_supervised(data_dir: Path) -> bool:
    """Whether an `mr up` lives on this data folder."""
    try:
        with lock(data_dir).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def token_header(settings: Settings) -> dict[str, str]:
    """What shows the predictor that it is asked by its own gateway; empty where no secret is set."""
    token = settings.predictor_token
    return {} if token is None else {TOKEN_HEADER: token.get_secret_value()}


def _embedded(settings: Settings) -> str | None:
    try:
        url = address(settings.data_dir).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return url if url and _answers(url, settings) else None


def _answering(settings: Settings, apart_from: Collection[str]) -> str:
    urls = settings.predictor_urls
    first = time.monotonic_ns() % len(urls)  # spreads callers over the predictors without a counter to share
    for url in urls[first:] + urls[:first]:
        if url not in apart_from and _answers(url, settings):
            return url
    raise TransientError(f"no predictor answers at {', '.join(urls)}")


def _answers(url: str, settings: Settings) -> bool:
    try:
        answer = httpx.get(f"{url}/health", headers=token_header(settings), timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK

"""Asks the inference process, which alone loads models: what a backbone is, what an adapter says of images."""

from collections.abc import Sequence
from typing import Any

import httpx
import structlog
from pydantic import BaseModel

from api.errors import PredictorUnavailable
from mr_core.backbones.description import BackboneDescription, BackboneOutputs, Preprocessing
from mr_core.errors import ReprogrammingError
from service.errors import ServiceError, TransientError
from service.predictor_launch import ensure_predictor, token_header
from service.settings import Settings

_TIMEOUT = httpx.Timeout(300, connect=5)  # the first question about a backbone waits until it is loaded
_TRIES = 2  # a question that ends the predictor it is put to must not go round until none is left
_log = structlog.get_logger(__name__)


class Inspection(BaseModel):
    """What loading an uploaded backbone showed."""

    sha256: str
    parameters: int
    outputs: BackboneOutputs
    preprocessing: Preprocessing | None = None


def inspect_backbone(settings: Settings, sha256: str, description: BackboneDescription) -> Inspection:
    """Load the weights (a blob) once; mr_core's error where they do not fit."""
    body = {"sha256": sha256, "description": description.model_dump(mode="json", by_alias=True)}
    return Inspection.model_validate(_ask(settings, "/inspect-backbone", json=body))


def predict(
    settings: Settings, *, adapter: str, tenant: str, images: Sequence[tuple[str, bytes]], top_k: int
) -> dict[str, Any]:
    """Predictions of an adapter for images (name, bytes), in their order; mr_core's error for one that is none."""
    files = [("images", (name, content, "application/octet-stream")) for name, content in images]
    parameters: dict[str, str | int] = {"adapter": adapter, "tenant": tenant, "top_k": top_k}
    answer: dict[str, Any] = _ask(settings, "/predict", params=parameters, files=files)
    return answer


def _ask(settings: Settings, path: str, **request: Any) -> Any:
    answer = _answer(settings, path, **request)
    if answer.is_success:
        return answer.json()
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise PredictorUnavailable("the predictor does not take this gateway's MR_PREDICTOR_TOKEN")
    raise _told(answer)


def _answer(settings: Settings, path: str, **request: Any) -> httpx.Response:
    """What a predictor answers. Where one dies meanwhile, another is asked the same, which changes nothing there."""
    broken: list[str] = []
    while True:
        try:
            url = ensure_predictor(settings, apart_from=broken)
        except TransientError as error:
            raise PredictorUnavailable(error.detail) from error
        try:
            return httpx.post(
                f"{url}{path}", headers=token_header(settings), timeout=_TIMEOUT, trust_env=False, **request
            )
        except httpx.HTTPError as error:
            broken.append(url)
            is_last = len(broken) == _TRIES or not set(settings.predictor_urls) - set(broken)
            if is_last or isinstance(error, httpx.ReadTimeout):
                raise PredictorUnavailable(f"the predictor did not answer: {type(error).__name__}") from error
            _log.warning("a predictor broke off, another is asked", url=url, error=type(error).__name__)


def _told(answer: httpx.Response) -> Exception:
    """The error of mr_core or service that the predictor met, by its code."""
    try:
        problem = answer.json()
        error_type = _by_code()[problem["code"]]
        error = error_type.__new__(error_type)
        Exception.__init__(error, problem["detail"])
        error.detail, error.param = problem["detail"], problem.get("param")
    except (ValueError, KeyError, TypeError):
        return PredictorUnavailable(f"the predictor answered {answer.status_code}")
    return error


def _by_code() -> dict[str, type[ReprogrammingError | ServiceError]]:
    found: dict[str, type[ReprogrammingError | ServiceError]] = {}
    pending: list[type[ReprogrammingError | ServiceError]] = [ReprogrammingError, ServiceError]
    while pending:
        error = pending.pop()
        found.setdefault(error.code, error)
        pending += error.__subclasses__()
    return found

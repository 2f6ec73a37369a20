"""The service as a client sees it: HTTP and nothing else."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx

from cli.errors import ApiError, CommandError, UnreachableError

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
_DEFAULT_DATA_DIR = Path("mr-data")


class Client:
    """Calls the API with a key. An error document becomes ApiError, a silent service UnreachableError."""

    def __init__(self, url: str, key: str, *, timeout_s: float = 60) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout_s, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call, answered with success; `options` are httpx's."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_success:
            return response
        raise _problem(response)

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON answer of a GET; parameters that are None are left out."""
        return self.request("GET", path, params=_given(parameters)).json()

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        while True:
            page = self.get(path, **parameters)
            yield from page["data"]
            if not page.get("has_more"):
                return
            parameters["after"] = page["last_id"]

    def submit(self, spec: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Post a job; sent again where the answer is lost, which the idempotency key makes harmless."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        parameters = {"dry_run": "true"} if dry_run else {}
        return self._patiently("POST", "/v1/jobs", json=spec, headers=headers, params=parameters, tries=4)

    def job(self, job_id: str, *, patience_s: float = 0) -> dict[str, Any]:
        """The job as it stands; a service that is away is given `patience_s` to come back."""
        return self._patiently("GET", f"/v1/jobs/{job_id}", tries=1 + int(patience_s))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for the end of a job; a job that has ended already is simply returned."""
        try:
            answer: dict[str, Any] = self.request("POST", f"/v1/jobs/{job_id}/cancel").json()
        except ApiError as error:
            if error.code != "job_finished":
                raise
            return self.job(job_id)
        return answer

    def upload(self, path: str, file: BinaryIO, name: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Post a file with a form; read in pieces, however large."""
        answer: dict[str, Any] = self.request(
            "POST", path, files={"file": (name, file)}, data=dict(form), timeout=httpx.Timeout(60, write=None, read=600)
        ).json()
        return answer

    def send_form(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Post a form without a file."""
        answer: dict[str, Any] = self.request(
            "POST", path, files={name: (None, text) for name, text in form.items()}
        ).json()
        return answer

    def complete_upload(self, upload_id: str) -> dict[str, Any]:
        """What an upload in parts becomes; asked again where the answer is lost, which gives the same."""
        timeout = httpx.Timeout(60, read=600)
        return self._patiently("POST", f"/v1/uploads/{upload_id}/complete", tries=4, timeout=timeout)

    def wait_for_dataset(self, dataset_id: str, *, timeout_s: float = 3600) -> dict[str, Any]:
        """The dataset once its validation has ended, `ready` or `invalid`."""
        give_up_at = time.monotonic() + timeout_s
        while (dataset := self.get(f"/v1/datasets/{dataset_id}"))["status"] == "validating":
            if time.monotonic() > give_up_at:
                raise UnreachableError(f"the dataset {dataset_id} is still being validated after {timeout_s:.0f} s")
            time.sleep(0.2)
        return dict(dataset)

    def download(self, path: str, target: Path) -> int:
        """Write an answer's bytes to a file, whole or not at all; how many there were."""
        partial = target.with_name(target.name + ".part")
        written = 0
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise _problem(response)
                with partial.open("wb") as file:
                    for chunk in response.iter_bytes():
                        written += file.write(chunk)
            partial.replace(target)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        finally:
            partial.unlink(missing_ok=True)
        return written

    def _patiently(self, method: str, path: str, *, tries: int, **options: Any) -> dict[str, Any]:
        for left in range(tries - 1, -1, -1):
            try:
                answer: dict[str, Any] = self.request(method, path, **options).json()
                return answer
            except CommandError as error:
                away = isinstance(error, UnreachableError) or (
                    isinstance(error, ApiError) and error.status in {502, 503}
                )
                if not away or not left:
                    raise
                time.sleep(1)
        raise AssertionError("the last try returns or raises")

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        return UnreachableError(f"no answer from {self.url}: {error or type(error).__name__} (start it with `mr up`?)")


def connect() -> Client:
    """The service of MR_URL and MR_API_KEY, or else the one that `mr up` keeps in ./mr-data (or MR_DATA_DIR)."""
    data_dir = Path(os.environ.get("MR_DATA_DIR") or _DEFAULT_DATA_DIR)
    url = os.environ.get("MR_URL") or _read(data_dir / "address")
    if not url:
        raise UnreachableError(
            f"no service is known: set MR_URL, or start one with `mr up` ({data_dir}/address is absent)"
        )
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"MR_URL is {url!r}, expected http://host:port or https://host")
    key = os.environ.get("MR_API_KEY") or _read(data_dir / "api-key")
    if not key:
        raise CommandError(f"no API key: set MR_API_KEY ({data_dir}/api-key cannot be read)")
    return Client(url, key)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _problem(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {"detail": response.text[:200].strip()}
    return ApiError(response.status_code, problem if isinstance(problem, dict) else {"detail": str(problem)})

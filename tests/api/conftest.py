"""One gateway on a real socket for all tests of this folder; every test is a tenant of its own."""

import io
import json
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import Body, FastAPI, UploadFile
from fastapi.responses import JSONResponse
from PIL import Image
from sqlalchemy import func, select, text

from api.main import create_app
from mr_core.backbones.description import BackboneDescription, BackboneOutputs, Preprocessing
from service import adapters, attempts, backbones, datasets, jobs, keys, sub_jobs
from service.blobs import Blobs
from service.logging import configure_logging
from service.models import Blob, Dataset, RegisteredBackbone, StoredArtifact, StoredSpectrum
from service.session import Database
from service.settings import Settings


@dataclass
class Gateway:
    """A running gateway, and what stands behind it."""

    url: str
    settings: Settings
    database: Database
    blobs: Blobs
    app: Any

    def key(self, tenant: str, *, scopes: tuple[str, ...] = ("read", "write", "admin"), **options: Any) -> str:
        with self.database.session() as session:
            return keys.create_key(session, tenant=tenant, name="test", scopes=scopes, **options)[1]

    def client(self, tenant: str, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key(tenant, **options)}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    @staticmethod
    def serving(app: Any) -> AbstractContextManager[str]:
        """Another app on a port of its own, while the block runs."""
        return serving(app)

    def kept(self) -> tuple[int, int, int, list[str]]:
        """Datasets, backbones, blobs and stored files: the same before and after what has to leave nothing."""
        with self.database.session() as session:
            counts = [
                session.scalars(select(func.count()).select_from(table)).one()
                for table in (Dataset, RegisteredBackbone, Blob)
            ]
        folder = self.settings.data_dir / "blobs"
        files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
        return counts[0], counts[1], counts[2], files


@pytest.fixture(scope="session")
def gateway(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with small limits, so that tests of them are quick."""
    administrator = Database(postgres_url, pool_size=1)
    name = f"test_{uuid4().hex[:12]}"
    _administrate(administrator, f"CREATE DATABASE {name} TEMPLATE migrated STRATEGY file_copy")
    url = administrator.url.set(database=name).render_as_string(hide_password=False)
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("gateway"),
        database_url=url,
        max_upload_bytes=8 << 20,
        predictor_urls=["http://127.0.0.1:9"],  # nobody listens; tests that need one bring their own
        log_level="error",
    )
    configure_logging(settings)
    database = Database(url)
    app = create_app(settings)
    with serving(app) as address:
        yield Gateway(address, settings, database, Blobs(settings.blob_store_url, database), app)
    database.dispose()
    _administrate(administrator, f"DROP DATABASE {name} WITH (FORCE)")
    administrator.dispose()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app on a free port of the loopback, in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class StandIn:
    """Leaves the rows that workers would, through service/, for one tenant."""

    def __init__(self, gateway: Gateway, tenant: str) -> None:
        self.gateway, self.tenant = gateway, tenant

    def dataset(self, classes: Sequence[str] = ("cat", "dog"), *, n_train: int = 40, status: str = "ready") -> str:
        """A dataset that validation has passed, refused, or not looked at."""
        with self.gateway.database.session() as session:
            row = datasets.create(
                session, tenant=self.tenant, name="pets", modality="image", sha256="0" * 64, size_bytes=1
            )
            if status == "ready":
                splits = {"train": n_train, "test": 8}
                datasets.set_ready(
                    session, row.id, pack_sha256="1" * 64, classes=classes, splits=splits, report={"corrupt": []}
                )
            elif status == "invalid":
                datasets.set_invalid(session, row.id, code="one_class", detail="one class: cat")
            return row.id

    def backbone(
        self, *, labels: int | None = 10, text: bool = False, size: int | None = 32, weights: bytes = b"weights"
    ) -> str:
        with self.gateway.database.session() as session:
            preprocessing = None if size is None else Preprocessing(size=size, mean=(0.5,) * 3, std=(0.5,) * 3)
            row = backbones.create(
                session,
                tenant=self.tenant,
                name="small",
                description=BackboneDescription(
                    id="uploaded", library="builtin", architecture="cifar_resnet20", preprocessing=preprocessing
                ),
                sha256=self.gateway.blobs.put_bytes(session, weights),
                size_bytes=len(weights),
                parameters=272_474,
                outputs=BackboneOutputs(labels=labels, embedding=64, text=text),
            )
            return row.id

    def job(self, dataset: str | None = None, **fields: Any) -> str:
        dataset = dataset or self.dataset()
        with self.gateway.database.session() as session:
            row = jobs.create_job(
                session,
                tenant=self.tenant,
                kind="reprogram",
                spec={"kind": "reprogram", "dataset": dataset},
                queue="cpu",
                dataset_id=dataset,
                **fields,
            )
            return row.id

    def claim(self, job: str) -> attempts.Claim:
        with self.gateway.database.session() as session:
            claim = attempts.claim(session, job, owner="wk_test", lease_s=60, environment={"threads": 1})
        assert claim is not None
        return claim

    def suspend(self, job: str, specs: Mapping[str, Mapping[str, Any]]) -> None:
        with self.gateway.database.session() as session:
            sub_jobs.suspend(session, self.claim(job), specs)

    def tell(self, claim: attempts.Claim, *new: Any) -> None:
        with self.gateway.database.session() as session:
            attempts.record_events(session, claim, new)

    def progress(self, claim: attempts.Claim, progress: Mapping[str, Any]) -> None:
        with self.gateway.database.session() as session:
            attempts.record_progress(session, claim, progress)

    def finish_cancelled(self, claim: attempts.Claim) -> None:
        with self.gateway.database.session() as session:
            attempts.finish_cancelled(session, claim)

    def finish(
        self,
        claim: attempts.Claim,
        result: Mapping[str, Any] | None = None,
        *,
        adapter: bytes | None = None,
        spectrum: tuple[list[float], list[float]] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> str | None:
        """End a job as succeeded; the id of its adapter."""
        with self.gateway.database.session() as session:
            attempts.finish_succeeded(session, claim, result or {})
            for name, (media_type, content) in (files or {}).items():
                sha256 = self.gateway.blobs.put_bytes(session, content)
                session.add(
                    StoredArtifact(
                        job_id=claim.job_id, name=name, media_type=media_type, sha256=sha256, size_bytes=len(content)
                    )
                )
            if spectrum is not None:
                row = StoredSpectrum(
                    job_id=claim.job_id, eigenvalues=spectrum[0], label_energy=spectrum[1], summary={"n_samples": 2}
                )
                session.add(row)
            if adapter is None:
                return None
            return adapters.create(
                session,
                tenant=self.tenant,
                job_id=claim.job_id,
                sha256=self.gateway.blobs.put_bytes(session, adapter),
                size_bytes=len(adapter),
                config={"backbone": {"id": "builtin/mini-clip"}, "classes": ["cat", "dog"]},
            ).id


@pytest.fixture
def stand_in(gateway: Gateway, tenant: str) -> StandIn:
    return StandIn(gateway, tenant)


@pytest.fixture
def archive() -> Callable[..., bytes]:
    """Makes a zip of folders of images: classes to counts, `extra` entries by name."""

    def make(classes: Mapping[str, int], *, extra: Mapping[str, bytes] | None = None) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            for n, (name, count) in enumerate(classes.items()):
                if count == 0:
                    file.mkdir(f"train/{name}")
                for k in range(count):
                    image = io.BytesIO()
                    Image.new("RGB", (16, 16), (40 * n, k, 90)).save(image, "png")
                    file.writestr(f"train/{name}/{k}.png", image.getvalue())
            for name, data in (extra or {}).items():
                file.writestr(name, data)
        return content.getvalue()

    return make


@pytest.fixture
def weights() -> Callable[..., bytes]:
    """Makes a safetensors file by hand, right or wrong."""

    def make(header: Mapping[str, Any] | bytes, content: bytes = b"") -> bytes:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw)) + raw + content

    return make


@pytest.fixture
def predictor(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Stands in for the predictor on a real socket: accepts weights called `fc`, and labels every image `cat`.

    Gives what it was asked.
    """
    asked: list[dict[str, Any]] = []
    app = FastAPI()

    @app.get("/health")
    def health() -> None: ...

    @app.post("/inspect-backbone")
    def inspect(body: Annotated[dict[str, Any], Body()]) -> Any:
        asked.append(body)
        with gateway.blobs.open(body["sha256"]) as stored:
            fits = b'"fc"' in stored.read()
        if not fits:
            detail = "the weights do not fit the architecture: 1 missing: fc; 1 unexpected: other"
            return JSONResponse({"code": "invalid_backbone", "detail": detail, "param": "file"}, 422)
        preprocessing = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
        outputs = {"labels": 10, "embedding": 64, "text": False}
        return {"sha256": body["sha256"], "parameters": 4, "outputs": outputs, "preprocessing": preprocessing}

    @app.post("/predict")
    def predict(images: list[UploadFile], adapter: str, tenant: str, top_k: int) -> Any:
        asked.append({"adapter": adapter, "tenant": tenant, "top_k": top_k})
        if any(image.file.read() == b"" for image in images):
            return JSONResponse({"code": "unreadable_image", "detail": "image 0 is empty", "param": "images"}, 422)
        top = [["cat", 0.9], ["dog", 0.1]][:top_k]
        labels = [{"input": image.filename, "label": "cat", "probability": 0.9, "top": top} for image in images]
        return {"backbone_sha256": "2" * 64, "predictions": labels}

    parts = gateway.app.state.parts
    with serving(app) as url:
        monkeypatch.setitem(parts.__dict__, "settings", parts.settings.model_copy(update={"predictor_urls": [url]}))
        yield asked


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4().hex[:8]}"


@pytest.fixture
def client(gateway: Gateway, tenant: str) -> Iterator[httpx.Client]:
    with gateway.client(tenant) as client:
        yield client


def _administrate(database: Database, statement: str) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))

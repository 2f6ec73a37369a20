"""Adapters kept warm on shared backbones, and predictions from them in joint passes. Imports torch."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from mr_core.adapter import Classifier, load_adapter
from mr_core.adapter_file import AdapterConfig, interpret, read_adapter, read_config
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import BackboneDescription, BackboneOutputs, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.primed import source_head
from mr_core.backbones.remote.cost import Limit
from mr_core.backbones.remote.source import oracle_of
from mr_core.engine import accelerate
from mr_core.errors import BackboneError, RemoteNotAnswering, UnreadableImage
from mr_core.observer import Observer
from service import adapters
from service.blobs import Blobs
from service.errors import NotFound
from service.session import Database
from service.settings import Settings
from worker.backbones import TenantBackbones
from worker.batching import MicroBatcher
from worker.warm import WarmCache

_SHARE_OF_MEMORY = 0.25
_ADAPTER_CACHE_BYTES = 256 * 2**20
_WINDOW_S = 0.003
_MOST_ASKING = 8  # requests that wait for remote backbones at once; the others' threads stay free
_ASKING_S = 60.0  # after which no further call of such a request goes out
_TRIED_IMAGES = 4
_TOLERANCE = 5e-7  # for images of noise; the probabilities of any image must agree within 1e-6

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """What an adapter says of one image; `top` is ordered, most probable first."""

    input: str
    label: str
    probability: float
    top: list[tuple[str, float]]


@dataclass(frozen=True, eq=False)
class WarmAdapter:
    """An adapter on its shared backbone; `pass_size` images go through at once."""

    classifier: Classifier
    pass_size: int


class _Deadline(Observer):
    """Ends the wait for a remote backbone: RemoteNotAnswering at the first beat after a minute."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + _ASKING_S

    def beat(self) -> None:
        if time.monotonic() > self._ends_at:
            raise RemoteNotAnswering(
                f"the remote backbone has not answered everything within {_ASKING_S:.0f} s: ask for fewer images",
                param="backbone",
            )


@dataclass(frozen=True)
class Inspection:
    """What loading uploaded weights showed."""

    sha256: str
    parameters: int
    outputs: BackboneOutputs
    preprocessing: Preprocessing


class Predictor:
    """Loads by id, keeps within `max_bytes` of backbones, and answers any number of threads at once."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        device: torch.device,
        max_bytes: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings or Settings()
        self._device = device
        self.backbones: WarmCache[Backbone] = WarmCache(
            max_bytes=max_bytes or _default_bytes(device), size_bytes=_held_bytes
        )
        self.adapters: WarmCache[WarmAdapter] = WarmCache(max_bytes=_ADAPTER_CACHE_BYTES, size_bytes=_own_bytes)
        self._batcher: MicroBatcher[WarmAdapter, NDArray[np.uint8], NDArray[np.float64]] = MicroBatcher(
            _probabilities, window_s=_WINDOW_S
        )
        self._asking = threading.BoundedSemaphore(_MOST_ASKING)
        self._inspecting = threading.Lock()  # two large uploads at once would need the memory of both

    def predict(
        self, adapter_id: str, *, tenant: str, images: Sequence[tuple[str, bytes]], top_k: int
    ) -> tuple[str, str | None, list[Answer]]:
        """SHA-256 of the adapter and of its backbone's file, and an answer an image (name, bytes), in their order.

        NotFound where the tenant has no such adapter, UnreadableImage naming the image that cannot be used.
        """
        with self._database.session() as session:
            row = adapters.get(session, tenant, adapter_id)
            sha256, around = row.sha256, row.config.get("backbone")
        if isinstance(around, dict) and around.get("library") == "remote":
            return sha256, None, self._predict_remotely(sha256, tenant=tenant, images=images, top_k=top_k)
        adapter = self.adapters.get(sha256, lambda: self._load_adapter(sha256))
        classifier = adapter.classifier
        self._batcher.announce()
        try:
            prepared = [_prepared(classifier, name, content) for name, content in images]
        except BaseException:
            self._batcher.withdraw()
            raise
        rows = self._batcher.answer(adapter, prepared)
        answers = [_answer(name, row, classifier.classes, top_k) for (name, _), row in zip(images, rows, strict=True)]
        return sha256, classifier.config["backbone"].get("sha256"), answers

    def _predict_remotely(
        self, sha256: str, *, tenant: str, images: Sequence[tuple[str, bytes]], top_k: int
    ) -> list[Answer]:
        """Of an adapter around a model elsewhere, asked once. Nothing is kept warm or joined with other requests.

        So each request is the tenant's own: by what is registered now, with the secret that is in force. RemoteError
        where the answers do not come within a minute, or too many others wait for theirs.
        """
        with self._database.session() as session:
            archive = self._blobs.read(session, sha256)
        described = interpret(read_config(read_adapter(archive))).backbone
        backbones = TenantBackbones(self._database, self._blobs, self._settings, tenant=tenant)
        backbone = backbones.load(described.id, attempts=1)
        classifier = load_adapter(archive, backbone)
        prepared = [_prepared(classifier, name, content) for name, content in images]
        if not self._asking.acquire(blocking=False):
            raise RemoteNotAnswering(
                f"{_MOST_ASKING} requests wait for remote backbones, as many as may at once: try again",
                param="backbone",
            )
        try:
            oracle = oracle_of(backbone)
            if oracle is not None:
                oracle.begin(_Deadline(), Limit())
            rows = _probabilities(WarmAdapter(classifier, backbone.chunk_size), prepared)
        finally:
            self._asking.release()
        return [_answer(name, row, classifier.classes, top_k) for (name, _), row in zip(images, rows, strict=True)]

    def inspect(self, sha256: str, description: BackboneDescription) -> Inspection:
        """What these weights are as this architecture; BackboneError where they do not fit, NotFound without them."""
        with self._inspecting, self._blobs.local_path(sha256) as weights:
            backbone = load_backbone(description.model_copy(update={"sha256": sha256}), weights=weights)
            return Inspection(
                sha256=sha256,
                parameters=sum(parameter.numel() for parameter in backbone.source.parameters()),
                outputs=backbone.output_shapes,
                preprocessing=backbone.preprocessing,
            )

    def close(self) -> None:
        """Answer what is waiting, then end."""
        self._batcher.close()

    def _load_adapter(self, sha256: str) -> WarmAdapter:
        with self._database.session() as session:
            archive = self._blobs.read(session, sha256)
        adapter = interpret(read_config(read_adapter(archive)))
        # Two registrations of the same weights share them; what an imported adapter says of a backbone has to be true.
        name = f"{adapter.backbone_state_sha256} {adapter.backbone.model_copy(update={'id': ''}).model_dump_json()}"
        backbone = self.backbones.get(name, lambda: self._load_true_backbone(adapter))
        classifier = load_adapter(archive, backbone=backbone)
        classifier.model.to(self._device)
        return WarmAdapter(classifier, pass_size=_pass_size(classifier))

    def _load_true_backbone(self, adapter: AdapterConfig) -> Backbone:
        """BackboneError where it is not the one that the adapter names by its digest; nothing is held then."""
        backbone = self._load_backbone(adapter.backbone)
        if backbone.state_sha256 != adapter.backbone_state_sha256:
            raise BackboneError(
                f"{adapter.backbone.id} is not the backbone this adapter was trained on: the digest of its tensors is "
                f"{backbone.state_sha256}, expected {adapter.backbone_state_sha256}",
                param="backbone",
            )
        return backbone

    def _load_backbone(self, description: BackboneDescription) -> Backbone:
        """On the device, in its fast form. A random one stays as it is: each adapter brings its own statistics."""
        if description.random_seed is not None:
            return load_backbone(description).to(self._device)
        if description.pretrained is not None or description.sha256 is None:
            return accelerate(load_backbone(description).to(self._device))
        try:
            with self._blobs.local_path(description.sha256) as weights:
                return accelerate(load_backbone(description, weights=weights).to(self._device))
        except NotFound as error:
            raise BackboneError(
                f"the weights of {description.id} are gone: they had the sha256 {description.sha256}", param="backbone"
            ) from error


def _prepared(classifier: Classifier, name: str, content: bytes) -> NDArray[np.uint8]:
    try:
        return classifier.prepare(content)
    except UnreadableImage as error:
        raise UnreadableImage(f"{name}: {error.detail}", param="images") from error


def _probabilities(adapter: WarmAdapter, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    rows: list[NDArray[np.float64]] = []
    for start in range(0, len(images), adapter.pass_size):
        rows.extend(adapter.classifier.probabilities(np.stack(images[start : start + adapter.pass_size])).numpy())
    return rows


@torch.no_grad()
def _pass_size(classifier: Classifier) -> int:
    """The backbone's own pass, or 1 where an image's answer would depend on its neighbours.

    Other kernels serve one image than several, and round differently; a steep head makes that visible. Logits are
    compared, since probabilities of noise may be saturated: a softmax moves by at most a quarter of their spread.
    """
    model = classifier.model
    side = model.input_transform.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_TRIED_IMAGES, 3, side, side, generator=generator).to(model.backbone.mean.device)
    moved = model(images) - torch.cat([model(image[None]) for image in images])
    difference = float((moved.amax(1) - moved.amin(1)).max()) / 4
    if difference <= _TOLERANCE:
        return model.backbone.chunk_size
    _log.info("passes of one image", difference=difference, backbone=model.backbone.description.id)
    return 1


def _answer(name: str, row: NDArray[np.float64], classes: Sequence[str], top_k: int) -> Answer:
    order = np.argsort(-row, kind="stable")[:top_k]
    top = [(classes[i], float(row[i])) for i in order]
    return Answer(input=name, label=top[0][0], probability=top[0][1], top=top)


def _held_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _own_bytes(adapter: WarmAdapter) -> int:
    """Without the backbone, which is shared, but for a primed one's head; a random one's statistics are its own."""
    model = adapter.classifier.model
    own = _held_bytes(model.input_transform) + _held_bytes(model.label_mapping)
    head = source_head(model.backbone)
    if head is not None:
        own += _held_bytes(head)
    is_shared = model.backbone.description.random_seed is None
    return own if is_shared else own + _held_bytes(model.backbone)


def _default_bytes(device: torch.device) -> int:
    """A quarter of the memory that backbones are held in."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * _SHARE_OF_MEMORY)
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _SHARE_OF_MEMORY)

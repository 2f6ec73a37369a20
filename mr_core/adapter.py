"""Saves an adapter, and loads it as a classifier."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from mr_core.adapter_file import FORMAT_VERSION, SOURCE_HEAD, interpret, read_adapter, read_config
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.calibration import restore_batch_norm
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.primed import primed, source_head
from mr_core.datasets.images import open_image, prepare_image
from mr_core.engine import accelerate
from mr_core.errors import AdapterError, BackboneError
from mr_core.jobs.outcome import AdapterContent
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.reprogrammed import ReprogrammedModel

_STATISTICS = "backbone_statistics."
_HEAD = "source_head."
ImageSource = str | Path | bytes | Image.Image


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the most probable class, and the `top_k` classes with their probabilities."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Classifier:
    """A loaded adapter around its backbone."""

    def __init__(self, model: ReprogrammedModel, *, classes: Sequence[str], config: dict[str, Any]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.classes = tuple(classes)
        self.config = config

    def predict(self, images: Sequence[ImageSource], *, top_k: int = 1) -> list[Prediction]:
        """Classify images given as paths, encoded bytes or Pillow images; DatasetError names an unreadable one."""
        batches = [
            images[start : start + self.model.backbone.chunk_size]
            for start in range(0, len(images), self.model.backbone.chunk_size)
        ]
        return [
            self._prediction(row, top_k)
            for batch in batches
            for row in self.probabilities(np.stack([self.prepare(image) for image in batch]))
        ]

    def prepare(self, image: ImageSource) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The image as the input transform takes it: `(3, k, k)` bytes."""
        if not isinstance(image, Image.Image):
            image = open_image(Path(image) if isinstance(image, str) else image)
        transform = self.model.input_transform
        return prepare_image(
            image,
            size=transform.image_size,
            fit=transform.fit,
            interpolation=self.model.backbone.preprocessing.interpolation,
        )

    @torch.no_grad()
    def probabilities(self, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Float[Tensor, "n c"]:
        """Class probabilities in float64 of prepared images `(n, 3, k, k)`."""
        device = self.model.backbone.mean.device
        logits: Tensor = self.model(torch.from_numpy(images).to(device).float().div_(255))
        return logits.double().softmax(1).cpu()

    def _prediction(self, probabilities: Float[Tensor, " c"], top_k: int) -> Prediction:
        values, indices = probabilities.topk(min(top_k, len(self.classes)))
        top = tuple((self.classes[i], float(value)) for i, value in zip(indices.tolist(), values, strict=True))
        return Prediction(label=top[0][0], probability=top[0][1], top=top)


def save_adapter(
    model: ReprogrammedModel,
    *,
    spec: ReprogramSpec,
    classes: Sequence[str],
    record: dict[str, Any],
) -> AdapterContent:
    """The adapter's two files. `record` (metrics, baselines, provenance) is added to the config as it is.

    Equal models and records give equal bytes, so it holds no times.
    """
    backbone = model.backbone
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("backbone.")
    }
    if backbone.description.random_seed is not None:
        tensors |= {_STATISTICS + name: tensor.cpu() for name, tensor in backbone.calibrated_statistics.items()}
    head = source_head(backbone)
    if head is not None:
        tensors |= {_HEAD + name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    config = {
        "format_version": FORMAT_VERSION,
        "required_features": [SOURCE_HEAD] if head is not None else [],
        "spec": spec.model_dump(mode="json"),
        "classes": list(classes),
        "image": {"size": model.input_transform.image_size, "fit": model.input_transform.fit},
        "preprocessing": backbone.preprocessing.model_dump(mode="json"),
        "backbone": backbone.description.model_dump(mode="json", by_alias=True)
        | {"state_sha256": backbone.state_sha256},
        **record,
    }
    return AdapterContent(
        config=json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode(),
        weights=safetensors.torch.save(tensors),
    )


def load_adapter(path: str | Path | bytes, backbone: str | Path | Backbone | None = None) -> Classifier:
    """A classifier from adapter.zip, its bytes, or the unpacked folder.

    The backbone is found by its id where it is built in, random, or in a hub's reach; for an uploaded one
    `backbone` is its safetensors file (or a Backbone loaded before, as `load_backbone` returns it). AdapterError
    where the file is no adapter or the backbone is not the one it was trained on; BackboneError where none is found.
    """
    content = read_adapter(Path(path) if isinstance(path, str) else path)
    config = read_config(content)
    adapter = interpret(config)
    try:
        tensors = safetensors.torch.load(content.weights)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"the adapter is damaged: {error}") from error
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(adapter.backbone, weights=Path(backbone) if backbone is not None else None)
    _check_backbone(backbone, config)
    model = rebuild(adapter.spec, adapter.classes, tensors, backbone)
    return Classifier(model, classes=adapter.classes, config=config)


def rebuild(
    spec: ReprogramSpec, classes: Sequence[str], tensors: dict[str, Tensor], backbone: Backbone
) -> ReprogrammedModel:
    """The reprogrammed model of a spec with an adapter's tensors, on the fast form of the backbone.

    A backbone that is accelerated already is shared, not copied: one serves many adapters.
    """
    statistics = {name.removeprefix(_STATISTICS): t for name, t in tensors.items() if name.startswith(_STATISTICS)}
    if statistics:
        backbone = copy.deepcopy(backbone)
        restore_batch_norm(backbone, statistics)
    backbone = accelerate(backbone)
    head = {name.removeprefix(_HEAD): t for name, t in tensors.items() if name.startswith(_HEAD)}
    if head:
        backbone = _with_head(backbone, head)
    model = ReprogrammedModel(
        spec.input_transform.build(backbone.preprocessing), backbone, spec.label_mapping.build(backbone, classes)
    )
    own = {name: t for name, t in tensors.items() if not name.startswith((_STATISTICS, _HEAD))}
    expected = {name: t.shape for name, t in model.state_dict().items() if not name.startswith("backbone.")}
    if {name: t.shape for name, t in own.items()} != expected:
        raise AdapterError(f"the adapter holds the tensors {sorted(own)}, its config describes {sorted(expected)}")
    model.load_state_dict(own, strict=False)
    return model


def _with_head(backbone: Backbone, head: dict[str, Tensor]) -> Backbone:
    width = backbone.width("embedding")
    weight, bias = head.get("weight"), head.get("bias")
    if set(head) != {"weight", "bias"} or weight is None or bias is None or weight.shape != (len(bias), width):
        shapes = {name: list(tensor.shape) for name, tensor in head.items()}
        raise AdapterError(f"the adapter's source head is {shapes}, expected weight [k, {width}] and bias [k]")
    return primed(backbone, weight.float(), bias.float())


def _check_backbone(backbone: Backbone, config: dict[str, Any]) -> None:
    found, expected = backbone.state_sha256, config["backbone"]["state_sha256"]
    if found != expected:
        raise BackboneError(
            f"{backbone.description.id} is not the backbone this adapter was trained on: the digest of its tensors is "
            f"{found}, expected {expected}",
            param="backbone",
        )

"""From an id or a description to a frozen backbone."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mr_core.backbones.backbone import Backbone, SourceModel
from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.backbones.identifiers import describe
from mr_core.backbones.remote.transport import RemoteAccess
from mr_core.backbones.weights import file_sha256, load_weights, state_sha256
from mr_core.errors import BackboneError
from mr_core.torchvision_compat import declare_missing_operators

MAX_PARAMETERS = 2_000_000_000


def load_backbone(
    which: str | BackboneDescription,
    *,
    weights: Path | None = None,
    random_seed: int = 0,
    access: RemoteAccess | None = None,
) -> Backbone:
    """The frozen backbone, in float32, on the CPU, in eval mode, without gradients.

    `which` is an id that needs no registration, or a description; `weights` is the safetensors file of an
    uploaded one, whose checksum must be the description's. `random_seed` counts for `random:` ids: the weights
    are those of the architecture's own initialisation under that seed, whatever the state of the global generator.
    `access` is how a remote one may be reached; nothing goes out without it.

    Raises BackboneError (unknown name, weights that do not fit, wrong checksum) and BackboneUnavailable (no network).
    """
    declare_missing_operators()
    description = describe(which, random_seed=random_seed) if isinstance(which, str) else which
    if description.library == "remote":
        from mr_core.backbones.remote.source import load_remote

        return load_remote(description, access)
    if weights is not None and description.random_seed is None:
        description = _with_checksum(description, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(description.random_seed or 0)
        return _LIBRARIES[description.library](description, weights)


def _with_checksum(description: BackboneDescription, weights: Path) -> BackboneDescription:
    found = file_sha256(weights)
    if description.sha256 not in (None, found):
        raise BackboneError(
            f"the weights file has sha256 {found}, but {description.id} has {description.sha256}", param="backbone"
        )
    return description.model_copy(update={"sha256": found})


def _file(
    description: BackboneDescription, weights: Path | None, fetch: Callable[[BackboneDescription], Path]
) -> Path | None:
    """The safetensors file to read, fetched where none is given; None for random weights."""
    if description.random_seed is not None:
        return None
    if weights is not None:
        return weights
    if description.pretrained is None:
        raise BackboneError(
            f"{description.id} was registered from a file with sha256 {description.sha256}: "
            'give that file, as in load_adapter(path, backbone="weights.safetensors")',
            param="backbone",
        )
    return fetch(description)


def _load_timm(description: BackboneDescription, weights: Path | None) -> Backbone:
    from mr_core.backbones import timm_models

    path = _file(description, weights, timm_models.fetch_weights)
    source, preprocessing = timm_models.build(description)
    _refuse_giants(source)
    classes = description.classes
    if path is not None:
        load_weights(source.model, path)
    if classes is None and description.pretrained is not None:
        classes = timm_models.source_classes(description)
    return _backbone(source, description, preprocessing, classes)


def _load_open_clip(description: BackboneDescription, weights: Path | None) -> Backbone:
    from mr_core.backbones import open_clip_models

    path = _file(description, weights, open_clip_models.fetch_weights)
    source, preprocessing = open_clip_models.build(description)
    _refuse_giants(source)
    if path is not None:
        load_weights(source.model, path)
    return _backbone(source, description, preprocessing, None)


def _load_torchvision(description: BackboneDescription, weights: Path | None) -> Backbone:
    from mr_core.backbones import torchvision_models

    path = _file(description, weights, torchvision_models.refuse_hub_weights)
    model = torchvision_models.build_model(description)
    _refuse_giants(model)
    if path is not None:
        load_weights(model, path)
    classes = description.classes
    if classes is None and description.pretrained is not None:
        classes = torchvision_models.source_classes(description)
    return _backbone(
        torchvision_models.wrap(model), description, torchvision_models.stated_preprocessing(description), classes
    )


def _load_builtin(description: BackboneDescription, weights: Path | None) -> Backbone:
    from mr_core.backbones import builtin_models

    if description.architecture not in builtin_models.ARCHITECTURES:
        raise BackboneError(
            f"unknown built-in architecture {description.architecture!r}: "
            f"expected one of {sorted(builtin_models.ARCHITECTURES)}",
            param="architecture",
        )
    architecture = builtin_models.ARCHITECTURES[description.architecture]
    path = _file(description, weights, lambda _: builtin_models.package_weights(architecture, description))
    source = builtin_models.build(architecture, description.arguments)
    if path is not None:
        load_weights(architecture.weights_module(source), path)
        if description.sha256 is None:
            description = description.model_copy(update={"sha256": file_sha256(path)})
    preprocessing = description.preprocessing or architecture.preprocessing(source)
    if source.only_canvas not in (None, preprocessing.size):
        raise BackboneError(
            f"the preprocessing makes canvases of {preprocessing.size} pixels, and this {description.architecture} "
            f"takes {source.only_canvas}",
            param="preprocessing",
        )
    return _backbone(source, description, preprocessing, description.classes or architecture.classes())


_LIBRARIES: dict[str, Callable[[BackboneDescription, Path | None], Backbone]] = {
    "timm": _load_timm,
    "open_clip": _load_open_clip,
    "torchvision": _load_torchvision,
    "builtin": _load_builtin,
}


def _backbone(
    source: SourceModel,
    description: BackboneDescription,
    preprocessing: Preprocessing,
    classes: tuple[str, ...] | None,
) -> Backbone:
    n_labels = source.n_source_classes
    if classes is not None and n_labels is not None and len(classes) != n_labels:
        if description.classes is not None:
            raise BackboneError(f"{len(classes)} class names for a head of {n_labels} outputs", param="classes")
        classes = None
    backbone = Backbone(source, description=description, preprocessing=preprocessing, source_classes=classes)
    backbone.state_sha256 = state_sha256(source)
    return backbone


def _refuse_giants(model: nn.Module) -> None:
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    if n_parameters > MAX_PARAMETERS:
        raise BackboneError(f"{n_parameters} parameters, at most {MAX_PARAMETERS} are accepted", param="architecture")

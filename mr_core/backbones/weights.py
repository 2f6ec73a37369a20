"""Weights: read from safetensors only, checked against the architecture before anything is allocated."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mr_core.errors import BackboneError

_SHOWN = 5


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly, cast to float32; BackboneError naming what does not fit."""
    try:
        with safe_open(path, framework="pt") as file:
            expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_fit(expected, found)
            model.load_state_dict({name: _as_float32(file.get_tensor(name)) for name in found}, strict=False)
    except SafetensorError as error:
        raise BackboneError(f"not a safetensors file: {error}", param="file") from error
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise BackboneError(f"the weights hold values that are not finite, first in {name!r}", param="file")


def _check_fit(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    # Counters of BatchNorm batches serve training alone; many exports leave them out.
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in expected]
    reshaped = [
        f"{name} {list(found[name])} instead of {list(expected[name])}"
        for name in found
        if name in expected and found[name] != expected[name]
    ]
    complaints = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if complaints:
        raise BackboneError(f"the weights do not fit the architecture: {'; '.join(complaints)}", param="file")


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

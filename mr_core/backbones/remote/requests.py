"""Canvases as the body of a request."""

import base64
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mr_core.backbones.description import Preprocessing
from mr_core.backbones.remote.description import IMAGES, RemoteDescription

_DECIMALS = 6


def wire_images(
    canvases: NDArray[np.float32], remote: RemoteDescription, preprocessing: Preprocessing
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Normalised canvases `(n, 3, s, s)` as the values that are sent: what equal requests are told by."""
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    clamped = np.clip(canvases, -mean / std, (1 - mean) / std)
    if remote.pixels == "float":
        return np.round(clamped, _DECIMALS).astype(np.float32)
    return np.round(clamped * 255).astype(np.uint8)


def encode(images: NDArray[np.float32] | NDArray[np.uint8], remote: RemoteDescription) -> bytes:
    """The request for `wire_images`' values, as JSON in UTF-8."""
    if remote.protocol == "open_inference":
        return _dumped(_open_inference(images, remote))
    listed = [_png(image) for image in images] if remote.pixels == "png" else _numbers(images)
    return _dumped(_filled(remote.request, listed))


def _open_inference(images: NDArray[Any], remote: RemoteDescription) -> dict[str, Any]:
    ordered = images if remote.layout == "nchw" else images.transpose(0, 2, 3, 1)
    output: dict[str, Any] = {} if remote.output is None else {"name": remote.output}
    tensor = {
        "name": remote.input,
        "shape": list(ordered.shape),
        "datatype": "FP32" if remote.pixels == "float" else "UINT8",
        "data": _numbers(ordered.reshape(-1)),
    }
    return {"inputs": [tensor], **({"outputs": [output]} if output else {})}


def _numbers(values: NDArray[Any]) -> list[Any]:
    """As Python's numbers; a float32 with no more digits than it has."""
    if values.dtype == np.uint8:
        return list(values.tolist())
    return list(np.round(values.astype(np.float64), _DECIMALS).tolist())


def _png(image: NDArray[np.uint8]) -> str:
    from PIL import Image  # which the gateway starts without

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _filled(template: Any, images: list[Any]) -> Any:
    if isinstance(template, dict):
        return {name: _filled(value, images) for name, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, images) for value in template]
    return images if template == IMAGES else template


def _dumped(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()

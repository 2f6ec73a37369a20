"""Chooses the fast form of a backbone and proves it equal."""

import copy
import logging
from typing import Literal

import torch
from torch import nn

from mr_core.backbones.backbone import Backbone
from mr_core.engine.agreement import gradient_agreement, output_difference, probe_canvases
from mr_core.engine.bfloat16 import Bfloat16Source, has_bfloat16_arithmetic
from mr_core.engine.fold import fold_batch_norm
from mr_core.engine.fuse import fuse_convolutions
from mr_core.engine.vision_transformer import is_vision_transformer, use_fast_tower
from mr_core.errors import SpecError

Precision = Literal["float32", "bfloat16"]

# Largest difference of any output, relative to the largest value. Rounding gives 1e-6 in trained networks and up to
# a few 1e-5 in deep random ones, which amplify it; a fold that is wrong is off by far more. Of a vision transformer
# the gradient too, by its norm: it has no kinks, where rounding makes a convnet's gradient jump.
TOLERANCE = 1e-4
# What a gradient in bfloat16 may lose. Vision transformers lose 1 %; convnets 13 % and more, and what they lose is
# not noise that averages out over a batch.
BFLOAT16_ERROR = 0.05
BFLOAT16_COSINE = 0.999
PASS_PIXELS = 32 * 224**2  # of all images of a pass: more is a little faster, and takes memory in proportion

_log = logging.getLogger(__name__)


def accelerate(backbone: Backbone, *, precision: Precision = "float32") -> Backbone:
    """A backbone with the same outputs, faster. The argument is left as it is.

    Convnets: BatchNorm folded, channels_last, on CPU clamps and uneven padding fused into convolutions. Vision
    transformers of open_clip and timm on CPU: see `Tower`. Passes of 32 images at 224 px (more of smaller ones).
    In float32 whatever fails the comparison with the stock model (all outputs, of a vision transformer the gradient
    too, relative difference up to 1e-4) is returned unchanged, with a warning; so is, without one, a model that is
    neither. A backbone that is accelerated already is returned as it is, whatever its precision.

    In bfloat16 outputs and gradients are near the stock model's, not equal: the gradient to two canvases is compared
    with the stock model's in float32, and SpecError names both figures where it is more than 5 % off or its cosine
    below 0.999. On CPU only.
    """
    if backbone.is_accelerated:
        return backbone
    return _in_bfloat16(backbone) if precision == "bfloat16" else _in_float32(backbone)


def _in_float32(backbone: Backbone) -> Backbone:
    is_transformer = backbone.mean.device.type == "cpu" and is_vision_transformer(backbone.source)
    if not is_transformer and not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        return backbone
    fast = copy.deepcopy(backbone)
    canvases = probe_canvases(backbone)
    if is_transformer:
        use_fast_tower(fast.source)
    else:
        _fold_and_fuse(fast)
    _set_ready(fast)
    worst = output_difference(fast, backbone, canvases)
    if worst <= TOLERANCE and is_transformer:
        worst = gradient_agreement(fast, backbone, canvases).relative_error
    if not worst <= TOLERANCE:
        name = "rewritten" if is_transformer else "folded"
        _log.warning("%s %s differs by %.1e: the stock model is used", name, backbone.description.id, worst)
        return backbone
    return fast


def _in_bfloat16(backbone: Backbone) -> Backbone:
    name = backbone.description.id
    if backbone.mean.device.type != "cpu":
        raise SpecError(f"the bfloat16 form of {name} runs on CPU; found {backbone.mean.device}", param="precision")
    if is_vision_transformer(backbone.source):
        fast = copy.deepcopy(backbone)
        use_fast_tower(fast.source, dtype=torch.bfloat16)
    else:
        fast = copy.deepcopy(_in_float32(backbone))
        fast.source = Bfloat16Source(fast.source)
    _set_ready(fast)
    error, cosine = gradient_agreement(fast, backbone, probe_canvases(backbone))
    if not (error <= BFLOAT16_ERROR and cosine >= BFLOAT16_COSINE):
        raise SpecError(
            f"{name} does not keep its gradient in bfloat16: relative error {error:.2g} (at most {BFLOAT16_ERROR}), "
            f"cosine {cosine:.4f} (at least {BFLOAT16_COSINE}); use float32",
            param="precision",
        )
    if not has_bfloat16_arithmetic():
        _log.warning("this processor has no bfloat16 arithmetic: %s is slower in it than in float32", name)
    return fast


def _fold_and_fuse(fast: Backbone) -> None:
    canvases, names = probe_canvases(fast), fast.available_outputs
    with torch.no_grad():
        fold_batch_norm(fast.source, lambda: fast.outputs(canvases, names))
        fast.use_channels_last()
        _keep_inputs_of_clamps(fast.source)
        if fast.mean.device.type == "cpu":  # the fused operations are oneDNN's
            fuse_convolutions(fast.source, lambda: fast.outputs(canvases, names))


def _set_ready(fast: Backbone) -> None:
    fast.chunk_size = min(64, max(1, PASS_PIXELS // fast.canvas_size**2))
    fast.is_accelerated = True


def _keep_inputs_of_clamps(model: nn.Module) -> None:
    """Out of place, ReLU6 saves its input; in place, autograd first copies what it is about to overwrite."""
    for module in model.modules():
        if isinstance(module, nn.Hardtanh):
            module.inplace = False

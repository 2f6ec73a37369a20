"""Chooses the fast form of a backbone and proves it equal."""

import copy
import logging

import torch
from torch import Tensor, nn

from mr_core.backbones.backbone import Backbone
from mr_core.engine.fold import fold_batch_norm
from mr_core.engine.fuse import fuse_convolutions

# Largest difference of any output, relative to the largest value. Rounding gives 1e-6 in trained networks and up to
# a few 1e-5 in deep random ones, which amplify it; a fold that is wrong is off by far more.
TOLERANCE = 1e-4
PASS_PIXELS = 32 * 224**2  # of all images of a pass: more is a little faster, and takes memory in proportion

_log = logging.getLogger(__name__)


def accelerate(backbone: Backbone) -> Backbone:
    """A backbone with the same outputs, faster; float32 stays float32. The argument is left as it is.

    Convnets: BatchNorm folded, channels_last, on CPU clamps and uneven padding fused into convolutions, passes of 32
    images at 224 px (more of smaller ones). Whatever fails
    the comparison with the stock model (all outputs, relative difference up to 1e-4) is returned unchanged, with a
    warning; a model without BatchNorm has nothing to fold and is returned as it is.
    """
    if backbone.is_accelerated or not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        return backbone
    fast = copy.deepcopy(backbone)
    names = fast.available_outputs
    canvases = torch.rand(2, 3, fast.canvas_size, fast.canvas_size, generator=torch.Generator().manual_seed(0))
    canvases = canvases.to(fast.mean.device)
    with torch.no_grad():
        expected = backbone.outputs(canvases, names)
        fold_batch_norm(fast.source, lambda: fast.outputs(canvases, names))
        fast.use_channels_last()
        _keep_inputs_of_clamps(fast.source)
        fuse_convolutions(fast.source, lambda: fast.outputs(canvases, names))
        fast.chunk_size = min(64, max(1, PASS_PIXELS // fast.canvas_size**2))
        fast.is_accelerated = True
        found = fast.outputs(canvases, names)
    worst = max(_relative_difference(found[name], expected[name]) for name in names)
    if not worst <= TOLERANCE:
        _log.warning("folded %s differs by %.1e: the stock model is used", backbone.description.id, worst)
        return backbone
    return fast


def _keep_inputs_of_clamps(model: nn.Module) -> None:
    """Out of place, ReLU6 saves its input; in place, autograd first copies what it is about to overwrite."""
    for module in model.modules():
        if isinstance(module, nn.Hardtanh):
            module.inplace = False


def _relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))

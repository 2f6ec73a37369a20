"""How far a fast form of a backbone lies from the stock model: its outputs, and the gradient to its canvases."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.backbones.backbone import Backbone


class GradientAgreement(NamedTuple):
    """Of the canvas that agrees least."""

    relative_error: float
    cosine: float


def probe_canvases(backbone: Backbone) -> Float[Tensor, "2 3 s s"]:
    """Two canvases of uniform noise, the same each time."""
    size = backbone.canvas_size
    canvases = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return canvases.to(backbone.mean.device)


@torch.no_grad()
def output_difference(fast: Backbone, stock: Backbone, canvases: Float[Tensor, "n 3 s s"]) -> float:
    """The largest difference over all outputs, each relative to its largest value."""
    names = stock.available_outputs
    found, expected = fast.outputs(canvases, names), stock.outputs(canvases, names)
    return max(_relative_difference(found[name], expected[name]) for name in names)


def gradient_agreement(fast: Backbone, stock: Backbone, canvases: Float[Tensor, "n 3 s s"]) -> GradientAgreement:
    """The gradient to the canvases of the embedding times a fixed random cotangent, of both; sums in float64.

    A gradient that is not finite agrees with nothing: nan.
    """
    width = stock.width("embedding")
    cotangents = torch.randn(len(canvases), width, generator=torch.Generator().manual_seed(1)).to(canvases.device)
    found, expected = (_gradients(backbone, canvases, cotangents) for backbone in (fast, stock))
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    cosines = torch.nn.functional.cosine_similarity(found, expected, dim=1)
    return GradientAgreement(relative_error=float(errors.max()), cosine=float(cosines.min()))


def _gradients(backbone: Backbone, canvases: Tensor, cotangents: Tensor) -> Float[Tensor, "n p"]:
    with torch.enable_grad():
        leaf = canvases.detach().clone().requires_grad_()
        (gradients,) = torch.autograd.grad(backbone(leaf), leaf, cotangents)
    return gradients.double().flatten(1)


def _relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))

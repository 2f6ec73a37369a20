"""How far a model moves as its tangent kernel says: one step of gradient descent, measured against predicted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.spectrum import Eigen

STEPS = (0.01, 0.1, 1.0, 10.0)


class StepError(TypedDict):
    """`step` in units of `1 / lambda_max`; `relative_error` of the change of all logits, in the Euclidean norm."""

    step: float
    relative_error: float


def linear_regime(
    model: nn.Module,
    images: Float[Tensor, "n 3 k k"],
    targets: Float[Tensor, "n c"],
    eigen: Eigen,
    *,
    parameters: Sequence[nn.Parameter],
    batch_size: int,
    steps: Sequence[float] = STEPS,
    beat: Callable[[], None] = lambda: None,
) -> list[StepError]:
    """The relative error of the linearised model's logits after one step, for steps of several sizes.

    A step of gradient descent on `|f - Y|^2 / 2` changes the logits by `-eta Theta (f_0 - Y) + O(eta^2)` (Jacot et al.,
    2018, arXiv:1806.07572): `eigen` is that of the full Theta of these images and `parameters`, and `eta = step /
    lambda_max`. Up to a step of 2 the linearised model descends. An error near 0 says that it describes that step, an
    error of 1 that it is no better than predicting no change at all; it falls in proportion to the step, down to what
    float32 resolves. A kernel of 0 has no steps: an empty list.

    The parameters are moved and put back. Costs one backward pass, and one forward pass a step, of all images.
    """
    largest = float(eigen.values[0])
    if largest <= 0:
        return []
    batches = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    with exact_arithmetic(model):
        before = _logits(model, images, batches, beat)
        residual = before - targets.to(before)
        gradient = _gradient(model, images, residual, parameters, batches, beat)
        if gradient is None:
            return []
        # Theta as its eigenpairs; a Kronecker product with the identity over classes acts on columns alone.
        columns = residual.double().cpu().reshape(len(eigen.values), -1)
        change = eigen.vectors @ (eigen.values[:, None] * (eigen.vectors.T @ columns))
        predicted = -change.reshape(before.shape) / largest
        errors: list[StepError] = []
        for step in steps:
            with _moved(parameters, gradient, by=-step / largest):
                after = _logits(model, images, batches, beat)
            measured = (after.double() - before.double()).cpu()
            error = float((measured - step * predicted).norm() / (step * predicted).norm())
            errors.append({"step": step, "relative_error": error})
    return errors


def _logits(
    model: nn.Module, images: Tensor, batches: Sequence[slice], beat: Callable[[], None]
) -> Float[Tensor, "n c"]:
    parts = []
    with torch.no_grad():
        for batch in batches:
            parts.append(model(images[batch]))
            beat()
    return torch.cat(parts)


def _gradient(
    model: nn.Module,
    images: Tensor,
    residual: Tensor,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[slice],
    beat: Callable[[], None],
) -> list[Tensor] | None:
    """`J^T residual`, one tensor a parameter; None where it is 0."""
    total = [torch.zeros_like(parameter) for parameter in parameters]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for batch in batches:
            with torch.enable_grad():
                logits = model(images[batch])
            parts = torch.autograd.grad(logits, parameters, residual[batch], allow_unused=True, materialize_grads=True)
            for kept, part in zip(total, parts, strict=True):
                kept += part
            beat()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return total if any(bool(tensor.any()) for tensor in total) else None


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], *, by: float) -> Iterator[None]:
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, way in zip(parameters, direction, strict=True):
                parameter.add_(way, alpha=by)
        yield
    finally:
        with torch.no_grad():
            for parameter, tensor in zip(parameters, kept, strict=True):
                parameter.copy_(tensor)

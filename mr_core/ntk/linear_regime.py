"""How far a model moves as its tangent kernel says: steps of gradient descent, measured against predicted."""

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.spectrum import Eigen
from mr_core.parameters import put_back

STEPS = (0.01, 0.1, 1.0, 10.0)
FIRST_STEPS = 5


class StepError(TypedDict):
    """`step` in units of `1 / lambda_max`; `relative_error` of the change of all logits, in the Euclidean norm."""

    step: float
    relative_error: float


class StepLoss(TypedDict):
    """Squared loss after so many steps, as shares of the loss before the first."""

    step: int
    predicted_loss: float
    measured_loss: float


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
        gradient = _gradient(model, images, lambda _, batch: residual[batch], parameters, batches, beat)
        if gradient is None:
            return []
        columns = _columns(residual, eigen)
        change = eigen.vectors @ (eigen.values[:, None] * (eigen.vectors.T @ columns))
        predicted = -change.reshape(before.shape) / largest
        errors: list[StepError] = []
        for step in steps:
            with put_back(parameters):
                _move(parameters, gradient, by=-step / largest)
                after = _logits(model, images, batches, beat)
            measured = (after.double() - before.double()).cpu()
            error = float((measured - step * predicted).norm() / (step * predicted).norm())
            errors.append({"step": step, "relative_error": error})
    return errors


def first_steps(
    model: nn.Module,
    images: Float[Tensor, "n 3 k k"],
    targets: Float[Tensor, "n c"],
    eigen: Eigen,
    *,
    parameters: Sequence[nn.Parameter],
    batch_size: int,
    n_steps: int = FIRST_STEPS,
    beat: Callable[[], None] = lambda: None,
) -> list[StepLoss]:
    """The loss `|f - Y|^2` over the first steps of full-batch gradient descent at the rate `1 / lambda_max`.

    Predicted is `|(I - Theta / lambda_max)^t (f_0 - Y)|^2`, exact for a model that is linear in its parameters;
    measured is what the model does. Rows for 0 to `n_steps` steps, up to one that is not finite. The parameters are
    put back. Costs a forward and a backward pass of all images a step, and a forward pass. A kernel of 0 has no steps,
    and neither has a model that meets its targets: an empty list.
    """
    largest = float(eigen.values[0])
    if largest <= 0:
        return []
    batches = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    goal = targets.to(images)
    residuals: list[Tensor] = []

    def residual(logits: Tensor, batch: slice) -> Tensor:
        residuals.append(logits - goal[batch])
        return residuals[-1]

    losses: list[float] = []
    gradient: list[Tensor] | None = None
    with exact_arithmetic(model), put_back(parameters):
        for step in range(n_steps + 1):
            residuals.clear()
            if step < n_steps:
                gradient = _gradient(model, images, residual, parameters, batches, beat)
            else:
                residual(_logits(model, images, batches, beat), slice(None))
            if step == 0:
                columns = _columns(torch.cat(residuals), eigen)
            losses.append(float(torch.cat(residuals).double().square().sum()))
            if gradient is None or not math.isfinite(losses[-1]):
                break
            _move(parameters, gradient, by=-1 / largest)
    if gradient is None or losses[0] == 0:
        return []
    remaining = (eigen.vectors.T @ columns).square().sum(1)
    shrinks = (1 - eigen.values / largest).square()
    return [
        {
            "step": step,
            "predicted_loss": float((shrinks**step @ remaining) / losses[0]),
            "measured_loss": loss / losses[0],
        }
        for step, loss in enumerate(losses)
        if math.isfinite(loss)
    ]


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
    residual: Callable[[Tensor, slice], Tensor],
    parameters: Sequence[nn.Parameter],
    batches: Sequence[slice],
    beat: Callable[[], None],
) -> list[Tensor] | None:
    """`J^T residual`, one tensor a parameter; None where it is 0. `residual` hears a batch's logits and place."""
    total = [torch.zeros_like(parameter) for parameter in parameters]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for batch in batches:
            with torch.enable_grad():
                logits = model(images[batch])
            cotangent = residual(logits.detach(), batch)
            parts = torch.autograd.grad(logits, parameters, cotangent, allow_unused=True, materialize_grads=True)
            for kept, part in zip(total, parts, strict=True):
                kept += part
            beat()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return total if any(bool(tensor.any()) for tensor in total) else None


def _columns(residual: Float[Tensor, "n c"], eigen: Eigen) -> Float[Tensor, "m b"]:
    """As the eigenvectors take it; a Kronecker product with the identity over classes acts on columns alone."""
    return residual.double().cpu().reshape(len(eigen.values), -1)


def _move(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], *, by: float) -> None:
    with torch.no_grad():
        for parameter, way in zip(parameters, direction, strict=True):
            parameter.add_(way, alpha=by)

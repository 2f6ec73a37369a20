"""The kernel of a prompt from gradients in bfloat16, with the error that this costs."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.engine import accelerate
from mr_core.errors import KernelError
from mr_core.ntk.canvas import has_factors
from mr_core.ntk.empirical import parameter_names, tangent_kernel
from mr_core.ntk.kernel import KernelPart, Kind, MeasuredError, Progress, TangentKernel
from mr_core.ntk.memory import MEMORY_CAP_BYTES
from mr_core.ntk.precision import exact_arithmetic, jacobian_dtype
from mr_core.ntk.structured import is_structured, reprogrammed_kernels
from mr_core.reprogrammed import ReprogrammedModel


def bfloat16_kernel(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    *,
    kind: Kind = "full",
    n_checked: int = 4,
    memory_cap: int = MEMORY_CAP_BYTES,
    on_progress: Progress = lambda _done, _total: None,
) -> TangentKernel:
    """As `tangent_kernel`, with gradients at the canvas taken and kept in bfloat16; its `error` says how near it is.

    Of the transform's part alone: half the memory of the rows, and on a processor with bfloat16 arithmetic about half
    the time. Products and sums stay float64, a mapping's own part stays exact. The kernel of `n_checked` samples,
    evenly spaced, is taken in float32 too, and `error` is the relative difference of that block of the
    transform's part: about 5e-3 in a vision transformer. An estimate for the rest, not a bound.

    `model` has its stock backbone, in float32 on CPU. SpecError where the backbone does not keep its gradient in
    bfloat16 (see `accelerate`), KernelError where the transform has no structured path, for another precision or an
    accelerated backbone, fewer than one sample to check, and whatever `tangent_kernel` raises.
    """
    if (found := jacobian_dtype(model)) != torch.float32:
        raise KernelError(f"found a model in {found}, expected torch.float32: bfloat16 is near that alone")
    if model.backbone.is_accelerated:
        raise KernelError("found an accelerated backbone, expected the stock one: its bfloat16 form is made from that")
    require_near_path(model, images, parameter_names(model, None))
    if not 1 <= n_checked <= len(images):
        raise KernelError(f"found {n_checked} samples to check, expected 1 to {len(images)}")
    near = accelerate(model.backbone, precision="bfloat16")
    groups = near_kernels(model, images, near, kind=kind, memory_cap=memory_cap, on_progress=on_progress)
    return with_measured_error(model, images, groups, kind=kind, n_checked=n_checked, memory_cap=memory_cap)


def require_near_path(model: ReprogrammedModel, images: Float[Tensor, "n 3 k k"], names: Sequence[str]) -> None:
    """KernelError where no gradient at the canvas is taken, so that there is nothing to take in bfloat16."""
    trains = any(name.startswith("input_transform.") for name in names)
    if not trains or not is_structured(model, names) or not has_factors(model.input_transform, images[:1].float()):
        raise KernelError(
            f"found {type(model.input_transform).__name__} with {', '.join(names)} to train, expected all parameters "
            "of a transform that knows its gradient from that at the canvas",
            param="precision",
        )


def near_kernels(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    near: Backbone,
    *,
    kind: Kind,
    parameters: Iterable[Tensor] | None = None,
    memory_cap: int = MEMORY_CAP_BYTES,
    on_progress: Progress = lambda _done, _total: None,
) -> dict[str, KernelPart]:
    """The kernels by group, gradients at the canvas taken through `near` and kept in bfloat16."""
    names = parameter_names(model, parameters)
    require_near_path(model, images, names)
    with exact_arithmetic(model):
        return reprogrammed_kernels(
            model,
            images,
            names,
            kind=kind,
            memory_cap=memory_cap,
            on_progress=on_progress,
            near=near,
        )


def with_measured_error(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    groups: Mapping[str, KernelPart],
    *,
    kind: Kind,
    parameters: Iterable[Tensor] | None = None,
    n_checked: int = 4,
    memory_cap: int = MEMORY_CAP_BYTES,
) -> TangentKernel:
    """The kernel that `groups`, near the model's, make up, with its error as `bfloat16_kernel` measures it."""
    checked = checked_samples(len(images), n_checked)
    exact = tangent_kernel(model, images[checked], parameters=parameters, kind=kind, memory_cap=memory_cap)
    relative = _block_error(groups["input_transform"], exact.groups["input_transform"], checked, n_samples=len(images))
    return dataclasses.replace(
        exact, n_samples=len(images), groups=groups, error=MeasuredError(relative, tuple(checked))
    )


def measured_error(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    near: Backbone,
    *,
    kind: Kind,
    parameters: Sequence[Tensor] | None = None,
    n_checked: int = 4,
) -> MeasuredError:
    """The same error where the kernel of all samples is never formed: that of a few samples is, twice."""
    checked = checked_samples(len(images), n_checked)
    few = images[checked]
    groups = near_kernels(model, few, near, kind=kind, parameters=parameters)
    error = with_measured_error(model, few, groups, kind=kind, parameters=parameters, n_checked=len(checked)).error
    assert error is not None
    return MeasuredError(error.relative, tuple(checked))


def checked_samples(n_samples: int, n_checked: int) -> list[int]:
    """The samples that are looked at twice: evenly spaced, fewer where there are not as many."""
    return sorted({round(place) for place in torch.linspace(0, n_samples - 1, n_checked).tolist()})


def _block_error(near: KernelPart, exact: KernelPart, checked: list[int], *, n_samples: int) -> float:
    """Relative Frobenius error of the checked samples' block; 0 where both are 0."""
    per_sample = len(near.matrix) // n_samples
    rows = (torch.tensor(checked)[:, None] * per_sample + torch.arange(per_sample)).flatten().to(near.matrix.device)
    difference = float((near.matrix[rows][:, rows] - exact.matrix).norm())
    return difference / float(exact.matrix.norm()) if difference else 0.0

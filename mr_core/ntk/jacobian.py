"""The general path: per-sample parameter Jacobians of any module, contracted group by group."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from mr_core.errors import KernelError
from mr_core.ntk.kernel import KernelPart, Kind, Progress, accumulate_gram, mirror_lower_half
from mr_core.ntk.memory import require_memory
from mr_core.ntk.precision import jacobian_dtype

CHUNK_SAMPLES = 16
CHUNK_BYTES = 256 * 2**20

Parameters = Mapping[str, Tensor]
Outputs = Callable[[Parameters, Tensor], Tensor]  # parameters, one sample -> its outputs (k,)
RowsOf = Callable[[Outputs, Parameters, Tensor], Tensor]  # -> (n, k, p)


def jacobian_kernel(
    module: nn.Module,
    inputs: Tensor,
    names: Sequence[str],
    *,
    n_outputs: int,
    kind: Kind,
    memory_cap: int,
    on_progress: Progress,
) -> KernelPart:
    """`J J^T` over the named parameters, by Jacobian contraction (Novak et al., 2022, arXiv:2206.08720, section 3.1).

    `inputs` is `(n, ...)`; the module gives `(n, ...)`, flattened to C outputs a sample. Parameters are taken in
    groups whose Jacobian fits the cap, one pass over the samples a group: the contraction is a sum over parameters.
    Call it within `exact_arithmetic`. Memory: the kernel in float64 and one group's Jacobian.
    KernelError over the cap, or where a Jacobian entry is not finite.
    """
    dtype = jacobian_dtype(module)
    state = widened_state(module, dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    n_samples = len(inputs)
    n_rows = 1 if kind == "pseudo" else n_outputs
    side = n_samples * n_outputs if kind == "full" else n_samples
    sizes = {name: state[name].numel() * n_samples * n_rows * dtype.itemsize for name in names}
    kernel_bytes = 8 * side * side
    require_memory(
        kernel_bytes + max(sizes.values()), cap=memory_cap, kind=kind, what="kernel and largest Jacobian block"
    )

    def outputs(parameters: Parameters, sample: Tensor) -> Tensor:
        values: Tensor = functional_call(module, {**state, **parameters}, (sample.unsqueeze(0),)).reshape(-1)
        return values.sum(0, keepdim=True) / math.sqrt(n_outputs) if kind == "pseudo" else values

    gram = torch.zeros(side, side, dtype=torch.float64, device=inputs.device)
    rows_of: RowsOf = vectorised_rows
    groups = list(grouped(sizes, memory_cap - kernel_bytes))
    for index, group in enumerate(groups):
        parameters = {name: state[name] for name in group}
        width = sum(tensor.numel() for tensor in parameters.values())
        jacobian = torch.empty(n_samples, n_rows, width, dtype=dtype, device=inputs.device)
        step = max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // (n_rows * width * dtype.itemsize)))
        for start in range(0, n_samples, step):
            chunk = inputs[start : start + step]
            try:
                rows = rows_of(outputs, parameters, chunk)
            except RuntimeError:  # an operator without a vmap rule, or data-dependent control flow
                if rows_of is looped_rows:
                    raise
                rows_of = looped_rows
                rows = rows_of(outputs, parameters, chunk)
            require_finite(rows, parameters, first_sample=start)
            jacobian[start : start + step] = rows
            on_progress(index * n_samples + min(start + step, n_samples), len(groups) * n_samples)
        accumulate_gram(gram, jacobian.view(side, -1))
    mirror_lower_half(gram)
    return KernelPart(gram.div_(n_outputs) if kind == "trace" else gram)


def vectorised_rows(outputs: Outputs, parameters: Parameters, samples: Tensor) -> Float[Tensor, "n k p"]:
    """Jacobian rows of all samples at once, by vmap over reverse-mode Jacobians."""
    jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(dict(parameters), samples)
    return torch.cat([jacobians[name].reshape(*jacobians[name].shape[:2], -1) for name in parameters], dim=2)


def looped_rows(outputs: Outputs, parameters: Parameters, samples: Tensor) -> Float[Tensor, "n k p"]:
    """The same, one backward pass per sample and output, for modules that vmap cannot trace."""
    return torch.stack([_sample_rows(outputs, parameters, sample) for sample in samples])


def _sample_rows(outputs: Outputs, parameters: Parameters, sample: Tensor) -> Float[Tensor, "k p"]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    with torch.enable_grad():
        values = outputs(leaves, sample)
    if not values.requires_grad:
        return values.new_zeros(len(values), sum(tensor.numel() for tensor in leaves.values()))
    rows = []
    for value in values:
        gradients = torch.autograd.grad(
            value, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def count_outputs(module: nn.Module, inputs: Tensor) -> int:
    """Outputs a sample, from a forward pass of the first one."""
    dtype = jacobian_dtype(module)
    first = inputs[:1].to(dtype) if inputs.is_floating_point() else inputs[:1]
    with torch.no_grad():
        values: Tensor = functional_call(module, widened_state(module, dtype), (first,))
    return values.numel()


def grouped(sizes: Mapping[str, int], budget: int) -> Iterator[list[str]]:
    """Names in order, in groups whose sizes sum to at most `budget`; a larger one stands alone."""
    group: list[str] = []
    used = 0
    for name, size in sizes.items():
        if group and used + size > budget:
            yield group
            group, used = [], 0
        group.append(name)
        used += size
    if group:
        yield group


def require_finite(
    rows: Float[Tensor, "n k p"], parameters: Mapping[str, Tensor], *, first_sample: int, first_output: int = 0
) -> None:
    """KernelError naming sample, output and parameter of the first entry that is not finite."""
    finite = rows.isfinite()
    if bool(finite.all()):
        return
    sample, output, column = (int(place) for place in (~finite).nonzero()[0])
    ends = itertools.accumulate(tensor.numel() for tensor in parameters.values())
    name = next(name for name, end in zip(parameters, ends, strict=True) if column < end)
    raise KernelError(
        f"the Jacobian of sample {first_sample + sample} is not finite (output {first_output + output}, "
        f"parameter {name}): look at that image, or use another backbone",
        sample=first_sample + sample,
    )


def widened_state(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters and buffers, detached; those in floating point in `dtype`."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
    }

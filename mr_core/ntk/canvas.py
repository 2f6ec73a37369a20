"""The kernel of an input transform that knows its gradient from the gradient at the canvas."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.input_transforms.module import InputTransform, JacobianFactor
from mr_core.ntk.jacobian import require_finite
from mr_core.ntk.kernel import KernelPart, Kind, Progress, accumulate_gram, mirror_lower_half
from mr_core.ntk.memory import require_memory
from mr_core.reprogrammed import ReprogrammedModel

BATCH_IMAGES = 16  # one graph is kept for all outputs of a batch; 16 is also fastest for small CNNs on a CPU


class FactorLayout(NamedTuple):
    """What a factor's kernel takes before any backward pass: its columns, and the kernel of its `samples`."""

    width: int
    sample_kernel: Float[Tensor, "n n"] | None


class FactorShape(NamedTuple):
    """The entries of a factor's row, and whether its `samples` weigh the products of rows."""

    width: int
    is_weighted: bool


def has_factors(transform: InputTransform, images: Float[Tensor, "n 3 k k"]) -> bool:
    """Whether the transform tells its Jacobian factors."""
    return _factors_without_gradient(transform, images[:1]) is not None


def canvas_kernel(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    *,
    kind: Kind,
    memory_cap: int,
    on_progress: Progress,
    storage: torch.dtype | None = None,
) -> KernelPart:
    """Kernel of a transform that `has_factors`, from gradients at the canvas (arXiv:2506.00620, section 2).

    A sample's gradient is a sum of factors `samples (x) rows`, so the kernel is the sum over factors of the kernel
    of `samples`, entry by entry times the Gram matrix of `rows`: of a prompt that all samples share the Gram matrix
    of masked input gradients, of a fully connected map `(x . x' + 1) J_in J_in'^T`, whatever its number of weights.
    One backward pass per output serves a whole batch, and the backbone's weights need no gradient. min(C, d) passes
    where a linear mapping reads d < C outputs: `J = Omega^T J_S`. A mapping whose matrix is 0 (an
    untrained linear head) makes this part exactly 0, and nothing is computed.

    Where the rows are over the cap their columns are taken in slices, one pass a slice; `storage` is the precision
    in which they are kept, the images' own if None. Products and sums are float64. Memory: the kernel in float64,
    one slice of N C rows, `8 N^2` bytes a factor that has `samples`, the graph of 16 images.
    """
    n_outputs = model.label_mapping.matrix().shape[1]
    n_samples = len(images)
    if not bool(model.label_mapping.matrix().any()):
        zeros = torch.zeros(n_samples, n_samples, dtype=torch.float64, device=images.device)
        return KernelPart(zeros, copies=n_outputs if kind == "full" else 1)
    storage = _storage(model, images, kind=kind, wanted=storage)
    n_rows = 1 if kind == "pseudo" else n_outputs
    side = n_samples * n_outputs if kind == "full" else n_samples
    layout = _layout(model.input_transform, images)
    column_bytes = n_samples * n_rows * storage.itemsize
    fixed_bytes = 8 * side**2 + 8 * n_samples**2 * sum(part.sample_kernel is not None for part in layout)
    require_memory(fixed_bytes + column_bytes, cap=memory_cap, kind=kind, what="kernel")
    slices = column_slices([part.width for part in layout], (memory_cap - fixed_bytes) // column_bytes)

    gram = torch.zeros(side, side, dtype=torch.float64, device=images.device)
    for index, pieces in enumerate(slices):
        kept = _rows(
            model,
            images,
            pieces,
            kind=kind,
            storage=storage,
            on_progress=_of_slice(on_progress, index, len(slices)),
        )
        for rows, (which, _) in zip(kept, pieces, strict=True):
            accumulate_gram(gram, rows.view(side, -1), weights=layout[which].sample_kernel)
        on_progress((index + 1) * n_samples, len(slices) * n_samples)
    mirror_lower_half(gram)
    return KernelPart(gram.div_(n_outputs) if kind == "trace" else gram)


def canvas_rows(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    *,
    kind: Kind,
    first_sample: int = 0,
    storage: torch.dtype | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> list[Float[Tensor, "n r _"]]:
    """The rows that `canvas_kernel` takes its products of: for each factor those of all images, r = C or 1 (`pseudo`).

    Bit for bit the same, however the samples are divided into stretches of whole batches (a multiple of 16 images).
    `first_sample` is the number of the first image, for errors. Memory: the rows.
    """
    shapes = factor_shapes(model.input_transform, images)
    return _rows(
        model,
        images,
        [(which, slice(0, shape.width)) for which, shape in enumerate(shapes)],
        kind=kind,
        storage=_storage(model, images, kind=kind, wanted=storage),
        first_sample=first_sample,
        on_progress=on_progress,
    )


def sample_kernels(transform: InputTransform, images: Float[Tensor, "n 3 k k"]) -> list[Float[Tensor, "n n"] | None]:
    """For each factor the kernel of its `samples`, which weighs the Gram matrix of its rows; None where that is 1."""
    return [part.sample_kernel for part in _layout(transform, images)]


def factor_shapes(transform: InputTransform, images: Float[Tensor, "n 3 k k"]) -> list[FactorShape]:
    """The transform's factors, known without a pass; none where it does not tell them."""
    factors = _factors_without_gradient(transform, images[:1]) or ()
    return [FactorShape(len(factor.rows[0]), factor.samples is not None) for factor in factors]


def _of_slice(on_progress: Progress, index: int, n_slices: int) -> Progress:
    """Tells of one of several passes over the samples."""
    return lambda done, n_samples: on_progress(index * n_samples + done, n_slices * n_samples)


def _storage(model: ReprogrammedModel, images: Tensor, *, kind: Kind, wanted: torch.dtype | None) -> torch.dtype:
    """Rows that are sums over sources stay in the images' precision: they would be rounded at every term."""
    return images.dtype if wanted is None or _goes_by_source(model, kind) else wanted


def _goes_by_source(model: ReprogrammedModel, kind: Kind) -> bool:
    n_read, n_outputs = model.label_mapping.matrix().shape
    return kind != "pseudo" and model.label_mapping.is_linear and n_read < n_outputs


def _rows(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    pieces: Sequence[tuple[int, slice]],
    *,
    kind: Kind,
    storage: torch.dtype,
    on_progress: Progress,
    first_sample: int = 0,
) -> list[Float[Tensor, "n r _"]]:
    """The columns of each piece (which factor, which of its columns), one backward pass an output and batch."""
    omega = model.label_mapping.matrix().detach().to(images.dtype)
    by_source = _goes_by_source(model, kind)
    n_samples, n_rows = len(images), 1 if kind == "pseudo" else omega.shape[1]
    kept = [
        torch.empty(n_samples, n_rows, columns.stop - columns.start, dtype=storage, device=images.device)
        for _, columns in pieces
    ]
    step = min(BATCH_IMAGES, model.batch_limit)
    for start in range(0, n_samples, step):
        batch = images[start : start + step]
        for output, factors in enumerate(_batch_factors(model, batch, kind=kind, by_source=by_source)):
            _require_finite_rows(factors, first_sample=first_sample + start, output=output)
            for target, (which, columns) in zip(kept, pieces, strict=True):
                block, rows = target[start : start + step], factors[which].rows[:, columns]
                if not by_source:
                    block[:, output] = rows
                elif output == 0:
                    block.copy_(omega[output][None, :, None] * rows[:, None])
                else:
                    block.add_(omega[output][None, :, None] * rows[:, None])
            on_progress(start + len(batch) * (output + 1) // (n_rows + 1), n_samples)
    return kept


def column_slices(widths: Sequence[int], limit: int) -> list[list[tuple[int, slice]]]:
    """The columns of all factors in order, `limit` at a time: in each slice which factor, and which of its columns."""
    slices: list[list[tuple[int, slice]]] = [[]]
    room = limit
    for index, width in enumerate(widths):
        start = 0
        while start < width:
            if room == 0:
                slices.append([])
                room = limit
            stop = min(width, start + room)
            slices[-1].append((index, slice(start, stop)))
            room -= stop - start
            start = stop
    return slices


def _layout(transform: InputTransform, images: Float[Tensor, "n 3 k k"]) -> list[FactorLayout]:
    starts = range(0, len(images), BATCH_IMAGES)
    batches = [_factors_without_gradient(transform, images[i : i + BATCH_IMAGES]) or () for i in starts]
    layout = []
    for factors in zip(*batches, strict=True):
        sample_kernel = None
        if factors[0].samples is not None:
            samples = torch.cat([factor.samples for factor in factors])
            require_finite(samples[:, None], {_name(factors[0]): samples[0]}, first_sample=0)
            sample_kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
            accumulate_gram(sample_kernel, samples)
            mirror_lower_half(sample_kernel)
        layout.append(FactorLayout(factors[0].rows.shape[1], sample_kernel))
    return layout


def _factors_without_gradient(
    transform: InputTransform, images: Float[Tensor, "n 3 k k"]
) -> Sequence[JacobianFactor] | None:
    size = transform.canvas_size
    with torch.no_grad():
        return transform.jacobian_factors(images, images.new_zeros(len(images) * transform.views, 3, size, size))


def _batch_factors(
    model: ReprogrammedModel, batch: Float[Tensor, "n 3 k k"], *, kind: Kind, by_source: bool
) -> Iterator[Sequence[JacobianFactor]]:
    """The factors of every image, for one output (of the backbone where `by_source`) after the other."""
    with torch.no_grad():
        canvases = model.input_transform(batch)
    with torch.enable_grad():
        canvases = canvases.detach().requires_grad_()
        outputs = model.outputs_of(canvases)
        if kind == "pseudo":
            logits = model.label_mapping(outputs)
            scores = logits.sum(1, keepdim=True) / math.sqrt(logits.shape[1])
        else:
            scores = outputs if by_source else model.label_mapping(outputs)
        sums = scores.sum(0)  # images do not mix, so the gradient of a sum holds every image's own gradient
    for index, total in enumerate(sums):
        (gradients,) = torch.autograd.grad(total, canvases, retain_graph=index + 1 < len(sums))
        with torch.no_grad():
            factors = model.input_transform.jacobian_factors(batch, gradients)
        assert factors is not None
        yield factors


def _require_finite_rows(factors: Sequence[JacobianFactor], *, first_sample: int, output: int) -> None:
    for factor in factors:
        rows = {_name(factor): factor.rows[0]}
        require_finite(factor.rows[:, None], rows, first_sample=first_sample, first_output=output)


def _name(factor: JacobianFactor) -> str:
    return " and ".join(f"input_transform.{name}" for name in factor.parameters)

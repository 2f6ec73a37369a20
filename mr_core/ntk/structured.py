"""The fast paths of a reprogrammed model: input gradients for a shared prompt, a closed form for a linear head."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.input_transforms.module import InputTransform
from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.label_mappings.module import LabelMapping
from mr_core.ntk.closed_form import linear_head_kernel
from mr_core.ntk.jacobian import jacobian_kernel, require_finite
from mr_core.ntk.kernel import KernelPart, Kind, Progress, accumulate_gram, mirror_lower_half
from mr_core.ntk.memory import require_memory
from mr_core.ntk.precision import jacobian_dtype
from mr_core.reprogrammed import ReprogrammedModel

BATCH_IMAGES = 16  # one graph is kept for all outputs of a batch; 16 is also fastest for small CNNs on a CPU


def is_structured(model: ReprogrammedModel, names: Sequence[str]) -> bool:
    """Whether these are all parameters of the transform, or of the mapping, or of both, and nothing else.

    Also asks for one precision throughout, float32 or float64: the general path casts, this one does not.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if {tensor.dtype for tensor in tensors if tensor.is_floating_point()} != {jacobian_dtype(model)}:
        return False
    wanted = set(names)
    for group in ("input_transform", "label_mapping"):
        own = {name for name, _ in model.named_parameters() if name.startswith(f"{group}.")}
        if own & wanted and not own <= wanted:
            return False
        wanted -= own
    return not wanted


def reprogrammed_kernels(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    names: Sequence[str],
    *,
    kind: Kind,
    memory_cap: int,
    on_progress: Progress,
) -> dict[str, KernelPart]:
    """The kernels of the transform and of the mapping, by group; their sum is the model's.

    Call it within `exact_arithmetic`. Where no shortcut is known the group takes the general path by itself:
    the transform through the whole model, a mapping on the backbone's outputs alone.
    """
    images = images.to(jacobian_dtype(model))
    parts = {}
    transform_names = [name for name in names if name.startswith("input_transform.")]
    if transform_names:
        if has_canvas_shortcut(model.input_transform, images):
            parts["input_transform"] = prompt_kernel(
                model, images, kind=kind, memory_cap=memory_cap, on_progress=on_progress
            )
        else:
            parts["input_transform"] = jacobian_kernel(
                model,
                images,
                transform_names,
                n_outputs=model.label_mapping.matrix().shape[1],
                kind=kind,
                memory_cap=memory_cap,
                on_progress=on_progress,
            )
    if len(transform_names) < len(names):
        outputs = backbone_outputs(model, images, on_progress=on_progress)
        parts["label_mapping"] = mapping_kernel(model.label_mapping, outputs, kind=kind, memory_cap=memory_cap)
    return parts


def prompt_kernel(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    *,
    kind: Kind,
    memory_cap: int,
    on_progress: Progress,
) -> KernelPart:
    """Kernel of a prompt that all samples share: the Gram matrix of input gradients (arXiv:2506.00620, section 2).

    A sample's Jacobian is its gradient at the canvas times a diagonal, so one backward pass per output serves a
    whole batch, and the backbone's weights need no gradient. min(C, d) passes where the mapping reads d < C
    outputs: it is linear, hence `J = Omega^T J_S`. A mapping whose matrix is 0 (an untrained linear head) makes
    this part exactly 0, and nothing is computed. Where the Jacobian is over the cap its columns are taken in
    slices, one pass a slice. Memory: the kernel in float64, one slice, the graph of 16 images.
    """
    transform, mapping = model.input_transform, model.label_mapping
    omega = mapping.matrix().detach().to(images.dtype)
    width, n_outputs = omega.shape
    n_samples = len(images)
    if not bool(omega.any()):
        zeros = torch.zeros(n_samples, n_samples, dtype=torch.float64, device=images.device)
        return KernelPart(zeros, copies=n_outputs if kind == "full" else 1)
    n_rows = 1 if kind == "pseudo" else n_outputs
    side = n_samples * n_outputs if kind == "full" else n_samples
    parameters = dict(transform.named_parameters(prefix="input_transform"))
    n_columns = sum(parameter.numel() for parameter in parameters.values())
    column_bytes = n_samples * n_rows * images.dtype.itemsize
    kernel_bytes = 8 * side * side
    require_memory(kernel_bytes + column_bytes, cap=memory_cap, kind=kind, what="kernel")
    slice_width = min(n_columns, (memory_cap - kernel_bytes) // column_bytes)
    n_slices = -(-n_columns // slice_width)

    gram = torch.zeros(side, side, dtype=torch.float64, device=images.device)
    for index in range(n_slices):
        columns = slice(index * slice_width, min((index + 1) * slice_width, n_columns))
        jacobian = torch.empty(
            n_samples, n_rows, columns.stop - columns.start, dtype=images.dtype, device=images.device
        )
        step = min(BATCH_IMAGES, model.backbone.chunk_size)
        for start in range(0, n_samples, step):
            batch = images[start : start + step]
            for output, rows in enumerate(_prompt_rows(model, batch, kind=kind, by_source=width < n_outputs)):
                require_finite(rows[:, None], parameters, first_sample=start)
                done = index * n_samples + start
                on_progress(done + len(batch) * (output + 1) // (n_rows + 1), n_slices * n_samples)
                if kind != "pseudo" and width < n_outputs:
                    term = omega[output][None, :, None] * rows[:, None, columns]
                    target = jacobian[start : start + len(batch)]
                    target.copy_(term) if output == 0 else target.add_(term)
                else:
                    jacobian[start : start + len(batch), output] = rows[:, columns]
        accumulate_gram(gram, jacobian.view(side, -1))
        on_progress((index + 1) * n_samples, n_slices * n_samples)
    mirror_lower_half(gram)
    return KernelPart(gram.div_(n_outputs) if kind == "trace" else gram)


def mapping_kernel(mapping: LabelMapping, outputs: Float[Tensor, "n d"], *, kind: Kind, memory_cap: int) -> KernelPart:
    """Kernel of the mapping's own parameters: closed form for a linear head, else the general path on `outputs`."""
    n_outputs = mapping.matrix().shape[1]
    if isinstance(mapping, LinearMapping):
        factor_bytes = 8 * (len(outputs) ** 2 + outputs.numel())
        require_memory(factor_bytes, cap=memory_cap, kind=kind, what="linear head's factor")
        return linear_head_kernel(outputs, n_outputs=n_outputs, kind=kind)
    names = [name for name, _ in mapping.named_parameters()]
    return jacobian_kernel(
        mapping,
        outputs,
        names,
        n_outputs=n_outputs,
        kind=kind,
        memory_cap=memory_cap,
        on_progress=lambda _done, _total: None,
    )


def backbone_outputs(
    model: ReprogrammedModel, images: Float[Tensor, "n 3 k k"], *, on_progress: Progress
) -> Float[Tensor, "n d"]:
    """What the mapping reads, without a graph, a batch at a time."""
    outputs = []
    with torch.no_grad():
        for start in range(0, len(images), model.backbone.chunk_size):
            stop = min(start + model.backbone.chunk_size, len(images))
            outputs.append(model.backbone_outputs(images[start:stop]))
            on_progress(stop, len(images))
    return torch.cat(outputs)


def has_canvas_shortcut(transform: InputTransform, images: Float[Tensor, "n 3 k k"]) -> bool:
    """Whether the transform turns canvas gradients into parameter gradients by itself."""
    with torch.no_grad():
        return transform.canvas_gradient_to_parameters(torch.zeros_like(transform(images[:1]))) is not None


def _prompt_rows(
    model: ReprogrammedModel, batch: Float[Tensor, "n 3 k k"], *, kind: Kind, by_source: bool
) -> Iterator[Float[Tensor, "n p"]]:
    """Jacobian rows of the prompt for one output of every image after the other."""
    with torch.no_grad():
        canvases = model.input_transform(batch)
    with torch.enable_grad():
        canvases = canvases.detach().requires_grad_()
        outputs = model.backbone(canvases, model.label_mapping.reads)
        if kind == "pseudo":
            logits = model.label_mapping(outputs)
            scores = logits.sum(1, keepdim=True) / math.sqrt(logits.shape[1])
        else:
            scores = outputs if by_source else model.label_mapping(outputs)
        sums = scores.sum(0)  # images do not mix, so the gradient of a sum holds every image's own gradient
    for index, total in enumerate(sums):
        (gradients,) = torch.autograd.grad(total, canvases, retain_graph=index + 1 < len(sums))
        rows = model.input_transform.canvas_gradient_to_parameters(gradients)
        assert rows is not None
        yield rows.detach()

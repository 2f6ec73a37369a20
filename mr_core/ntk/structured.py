"""The fast paths of a reprogrammed model: canvas gradients for its transform, a closed form for a linear head."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.label_mappings.module import LabelMapping
from mr_core.ntk.canvas import canvas_kernel, has_factors
from mr_core.ntk.closed_form import linear_head_kernel
from mr_core.ntk.kernel import KernelPart, Kind, Progress
from mr_core.ntk.layered import module_kernel
from mr_core.ntk.memory import require_memory
from mr_core.ntk.precision import jacobian_dtype
from mr_core.reprogrammed import ReprogrammedModel


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
    near: Backbone | None = None,
) -> dict[str, KernelPart]:
    """The kernels of the transform and of the mapping, by group; their sum is the model's.

    `near` stands in for the backbone where gradients at the canvas are taken, and has them kept in bfloat16.
    Call it within `exact_arithmetic`. Where no shortcut is known the group takes the general path by itself:
    the transform through the whole model, a mapping on the backbone's outputs alone.
    """
    images = images.to(jacobian_dtype(model))
    parts = {}
    transform_names = [name for name in names if name.startswith("input_transform.")]
    if transform_names:
        if has_factors(model.input_transform, images):
            parts["input_transform"] = canvas_kernel(
                model if near is None else ReprogrammedModel(model.input_transform, near, model.label_mapping),
                images,
                kind=kind,
                memory_cap=memory_cap,
                on_progress=on_progress,
                storage=None if near is None else torch.bfloat16,
            )
        else:
            parts["input_transform"] = module_kernel(
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


def mapping_kernel(mapping: LabelMapping, outputs: Float[Tensor, "n d"], *, kind: Kind, memory_cap: int) -> KernelPart:
    """Kernel of the mapping's own parameters: closed form for a linear head, else the general path on `outputs`."""
    n_outputs = mapping.matrix().shape[1]
    if isinstance(mapping, LinearMapping):
        factor_bytes = 8 * (len(outputs) ** 2 + outputs.numel())
        require_memory(factor_bytes, cap=memory_cap, kind=kind, what="linear head's factor")
        return linear_head_kernel(outputs, n_outputs=n_outputs, kind=kind)
    names = [name for name, _ in mapping.named_parameters()]
    return module_kernel(
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
        for start in range(0, len(images), model.batch_limit):
            stop = min(start + model.batch_limit, len(images))
            outputs.append(model.backbone_outputs(images[start:stop]))
            on_progress(stop, len(images))
    return torch.cat(outputs)

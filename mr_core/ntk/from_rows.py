"""The kernel of a reprogrammed model whose transform's rows are stored: formed, or as its products."""

import copy
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.ntk.canvas import sample_kernels
from mr_core.ntk.closed_form import linear_head_kernel
from mr_core.ntk.composed import KroneckerOperator, RowsOperator, SumOperator
from mr_core.ntk.kernel import KernelPart, Kind, Progress, TangentKernel
from mr_core.ntk.memory import MEMORY_CAP_BYTES
from mr_core.ntk.operator import KernelOperator, SymmetricOperator
from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.stored_rows import StoredRows, gram_of_rows
from mr_core.ntk.structured import backbone_outputs, mapping_kernel
from mr_core.reprogrammed import ReprogrammedModel


def kernel_of_rows(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    rows: StoredRows,
    *,
    kind: Kind,
    memory_cap: int = MEMORY_CAP_BYTES,
    on_progress: Progress = lambda _done, _total: None,
) -> TangentKernel:
    """What `tangent_kernel` gives of all parameters of transform and mapping, from the transform's rows.

    KernelError over the cap. Equal to the last bit where that takes the rows in one piece.
    """
    n_outputs = model.label_mapping.matrix().shape[1]
    parameters = model.adapter_parameters()
    with exact_arithmetic(model):
        groups = {
            "input_transform": gram_of_rows(
                rows,
                kind=kind,
                n_samples=len(images),
                n_outputs=n_outputs,
                sample_kernels=[
                    None if kernel is None else kernel.cpu() for kernel in sample_kernels(model.input_transform, images)
                ],
                memory_cap=memory_cap,
                on_progress=on_progress,
            )
        }
        if any(True for _ in model.label_mapping.parameters()):
            outputs = backbone_outputs(model, images, on_progress=lambda _done, _total: None)
            part = mapping_kernel(model.label_mapping, outputs, kind=kind, memory_cap=memory_cap)
            groups["label_mapping"] = KernelPart(part.matrix.cpu(), part.copies)
    return TangentKernel(
        kind=kind,
        n_samples=len(images),
        n_outputs=n_outputs,
        n_parameters=sum(parameter.numel() for parameter in parameters),
        groups=groups,
    )


def operator_of_rows(
    model: ReprogrammedModel,
    images: Float[Tensor, "n 3 k k"],
    rows: StoredRows,
    *,
    beat: Callable[[], None] = lambda: None,
) -> SymmetricOperator:
    """The products of the full kernel of all parameters of transform and mapping, from the transform's rows."""
    mapping = model.label_mapping
    own = RowsOperator(rows, n_outputs=mapping.matrix().shape[1], beat=beat)
    if not any(True for _ in mapping.parameters()):
        return own
    with exact_arithmetic(model):
        outputs = backbone_outputs(model, images, on_progress=lambda _done, _total: None)
    beat()
    if isinstance(mapping, LinearMapping):
        head = linear_head_kernel(outputs, n_outputs=len(mapping.bias), kind="full")
        return SumOperator([own, KroneckerOperator(head.matrix, copies=head.copies)])
    beside = copy.deepcopy(mapping).cpu()  # the rows are there too
    return SumOperator([own, KernelOperator(beside, outputs.cpu(), parameters=beside.parameters(), beat=beat)])

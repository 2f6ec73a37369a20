"""Takes a diagnosis' kernel: in this process or from its blocks; dense, or by its products where it is too large."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from mr_core.errors import KernelError
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.blocks import n_passes, stretches
from mr_core.jobs.diagnose.spec import DiagnoseSpec, OnSubsample
from mr_core.jobs.diagnose.subject import Subject
from mr_core.jobs.kernel_block.spec import KernelBlockSpec
from mr_core.ntk.bfloat16 import measured_error, near_kernels, require_near_path, with_measured_error
from mr_core.ntk.canvas import FactorShape, factor_shapes
from mr_core.ntk.empirical import parameter_names, require_kernel_memory, tangent_kernel
from mr_core.ntk.from_rows import kernel_of_rows, operator_of_rows
from mr_core.ntk.kernel import TangentKernel
from mr_core.ntk.matrix_free import matrix_free_spectrum, require_matrix_free_memory
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.operator import KernelOperator, SymmetricOperator
from mr_core.ntk.spectrum import Eigen, Spectrum, eigendecomposition, spectrum
from mr_core.ntk.stored_rows import StoredRows
from mr_core.sub_jobs import SubJobEnd

ROWS_CAP_BYTES: Final = 8 * 2**30
"""Of files with the rows of all blocks."""


@dataclass(frozen=True)
class Plan:
    """How a kernel is to be taken: `stretches` are the blocks' samples, none where it is taken in one process."""

    is_dense: bool
    stretches: Sequence[range]
    widths: Sequence[int]


@dataclass(frozen=True)
class Reading:
    """What was read off a kernel; `eigen` is None where it was not formed, `traces` are those of its groups."""

    spectrum: Spectrum
    eigen: Eigen | None
    traces: Mapping[str, float]


def require_kernel_fits(spec: OnSubsample, subject: Subject, *, n_classes: int, memory_cap: int) -> None:
    """Refuse an oversized kernel, or one of a kind that cannot be, before anything is computed."""
    model, n_samples = subject.model, len(subject.chosen)
    if subject.near is not None:
        names = parameter_names(model, model.adapter_parameters())
        require_near_path(model, subject.images(slice(0, 1)), names)
    if not _has_rows(subject):
        return  # a linear head alone stays small
    try:
        if spec.kernel == "full" and not _is_dense(spec.kernel, n_samples, n_classes, memory_cap):
            require_matrix_free_memory(n_samples * n_classes, memory_cap=memory_cap)
        else:
            require_kernel_memory(spec.kernel, n_samples=n_samples, n_outputs=n_classes, memory_cap=memory_cap)
    except KernelError as error:
        raise KernelError(f"{n_samples} samples x {n_classes} classes: {error.detail}", param="kernel") from error


def plan_kernel(spec: DiagnoseSpec, subject: Subject, *, memory_cap: int = MEMORY_CAP_BYTES) -> Plan:
    """How to take the kernel of a subject whose mapping is fitted; KernelError where it has no blocks, and was to."""
    n_samples, n_classes = len(subject.chosen), subject.model.label_mapping.matrix().shape[1]
    is_dense = not _has_rows(subject) or _is_dense(spec.kernel, n_samples, n_classes, memory_cap)
    shapes: Sequence[FactorShape] = ()
    if _has_rows(subject):
        shapes = factor_shapes(subject.model.input_transform, subject.images(slice(0, 1)))
    passes = n_passes(spec.kernel, n_classes)
    bytes_a_sample = passes * sum(shape.width for shape in shapes) * (4 if subject.near is None else 2)
    try:
        _require_blocks(spec, subject, shapes, is_dense=is_dense, rows_bytes=n_samples * bytes_a_sample)
    except KernelError:
        if spec.block_samples is not None:
            raise
        parts: Sequence[range] = ()
    else:
        parts = stretches(n_samples, passes=passes, block_samples=spec.block_samples, bytes_a_sample=bytes_a_sample)
    if subject.near is not None and not is_dense and not parts:
        raise KernelError(
            "a kernel this large without stored rows is taken by products in float32: leave precision out",
            param="precision",
        )
    return Plan(is_dense, parts, [shape.width for shape in shapes])


def read_kernel(
    spec: DiagnoseSpec, subject: Subject, plan: Plan, context: JobContext, *, targets: Tensor, memory_cap: int
) -> Reading:
    """Take the kernel and read it; in the service the attempt may end here, to wait for the blocks."""
    with ExitStack() as stack:
        rows = None
        if plan.stretches:
            ends = context.sub_jobs.run(block_specs(spec, subject, plan), context)
            files = [stack.enter_context(_file_of(name, end)) for name, end in ends.items()]
            rows = StoredRows(files, widths=plan.widths)
        if not plan.is_dense:
            return _read_products(spec, subject, rows, context, targets=targets, memory_cap=memory_cap)
        kernel = _dense(spec, subject, rows, context, memory_cap=memory_cap)
    total = kernel.total(memory_cap=memory_cap)
    context.observer.beat()
    eigen = eigendecomposition(total, kind=spec.kernel, memory_cap=memory_cap)
    context.observer.beat()
    return Reading(
        spectrum=spectrum(kernel, total, eigen, targets),
        eigen=eigen,
        traces={name: part.trace for name, part in kernel.groups.items()},
    )


def block_specs(spec: DiagnoseSpec, subject: Subject, plan: Plan) -> dict[str, KernelBlockSpec]:
    """The blocks' specs by name, which leave nothing to chance or to the parent."""
    shared = {name: getattr(spec, name) for name in KernelBlockSpec.model_fields if name in DiagnoseSpec.model_fields}
    shared |= {"kind": "kernel_block", "input_transform": subject.input_transform, "metadata": {}}
    return {
        f"samples-{part.start}-{part.stop - 1}": KernelBlockSpec(**shared, start=part.start, stop=part.stop)
        for part in plan.stretches
    }


def _dense(
    spec: DiagnoseSpec, subject: Subject, rows: StoredRows | None, context: JobContext, *, memory_cap: int
) -> TangentKernel:
    model, images = subject.model, subject.images()
    parameters = model.adapter_parameters()

    def progress(unit: str) -> Callable[[int, int], None]:
        return lambda done, total: context.observer.progress(done, total, unit=unit)

    if rows is not None:
        kernel = kernel_of_rows(
            model, images, rows, kind=spec.kernel, memory_cap=memory_cap, on_progress=progress("slab")
        )
        groups = kernel.groups
    elif subject.near is None:
        return tangent_kernel(
            model,
            images,
            parameters=parameters,
            kind=spec.kernel,
            memory_cap=memory_cap,
            on_progress=progress("image"),
        )
    else:
        groups = near_kernels(
            model,
            images,
            subject.near,
            kind=spec.kernel,
            parameters=parameters,
            memory_cap=memory_cap,
            on_progress=progress("image"),
        )
    if subject.near is None:
        return kernel
    return with_measured_error(model, images, groups, kind=spec.kernel, parameters=parameters, memory_cap=memory_cap)


def _read_products(
    spec: DiagnoseSpec,
    subject: Subject,
    rows: StoredRows | None,
    context: JobContext,
    *,
    targets: Tensor,
    memory_cap: int,
) -> Reading:
    model, images, beat = subject.model, subject.images(), context.observer.beat
    parameters = model.adapter_parameters()
    kernel: SymmetricOperator
    if rows is None:
        kernel = KernelOperator(model, images, parameters=parameters, beat=beat)
    else:
        kernel = operator_of_rows(model, images, rows, beat=beat)
    error = None
    if subject.near is not None and rows is not None:
        error = measured_error(model, images, subject.near, kind=spec.kernel, parameters=parameters)
    read = matrix_free_spectrum(
        kernel,
        targets,
        n_parameters=sum(parameter.numel() for parameter in parameters),
        seed=spec.seed,
        memory_cap=memory_cap,
        error=error,
    )
    return Reading(spectrum=read, eigen=None, traces={"adapter": read.summary["trace"]})


def _has_rows(subject: Subject) -> bool:
    """Whether the transform's part of the kernel is anything but 0, which takes no pass."""
    trains = any(True for _ in subject.model.input_transform.parameters())
    return trains and bool(subject.model.label_mapping.matrix().any())


def _is_dense(kind: str, n_samples: int, n_classes: int, memory_cap: int) -> bool:
    side = n_samples * n_classes if kind == "full" else n_samples
    return 3 * 8 * side * side <= memory_cap


def _require_blocks(
    spec: DiagnoseSpec, subject: Subject, shapes: Sequence[FactorShape], *, is_dense: bool, rows_bytes: int
) -> None:
    """KernelError where the kernel cannot be made of blocks."""
    if not shapes:
        raise KernelError(
            f"a kernel of {type(subject.model.input_transform).__name__} and "
            f"{type(subject.model.label_mapping).__name__} has no blocks: they are rows of a transform that trains, "
            "knows its gradient from that at the canvas, and is read by the mapping as it stands",
            param="block_samples",
        )
    if not is_dense and any(shape.is_weighted for shape in shapes):
        raise KernelError(
            f"a kernel of {type(subject.model.input_transform).__name__} this large is taken by its products, and "
            "needs no rows: leave block_samples out",
            param="block_samples",
        )
    require_memory(rows_bytes, cap=ROWS_CAP_BYTES, kind=spec.kernel, what="stored rows")


def _file_of(name: str, end: SubJobEnd) -> AbstractContextManager[Path]:
    if end.file is None:
        error = end.error or {}
        why = f"{error['code']}: {error['detail']}" if error else end.status
        raise KernelError(f"the block {name} of the kernel did not succeed ({why})", param=error.get("param"))
    return end.file()

"""The run of a block: the Jacobian rows of its samples, in a file."""

import torch

from mr_core.errors import SpecError
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.subject import load_subject, outputs_through
from mr_core.jobs.kernel_block.spec import KernelBlockSpec
from mr_core.jobs.outcome import JobOutcome
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.ntk.canvas import canvas_rows
from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.stored_rows import write_rows
from mr_core.reprogrammed import ReprogrammedModel


def kernel_block(spec: KernelBlockSpec, context: JobContext) -> JobOutcome:
    """The rows of samples `start` to `stop`, as the diagnosis itself would take them.

    The mapping is fitted on the whole subsample, which takes a forward pass: so the rows depend on the spec alone.

    Raises SpecError (samples that the subsample does not have) and whatever the diagnosis does.
    """
    watch = Stopwatch(context.observer)
    watch.begin("embedding")
    subject = load_subject(spec, context, settled=spec.input_transform)
    if not spec.start < spec.stop <= len(subject.chosen):
        raise SpecError(
            f"found samples {spec.start} to {spec.stop - 1}, the subsample has {len(subject.chosen)}", param="stop"
        )
    model = subject.model
    if subject.refits:
        through = outputs_through(model, model.input_transform, subject.sample, context)
        subject.fit_mapping(through[model.label_mapping.reads].to(context.device))

    watch.begin("diagnosing")
    images = subject.images(slice(spec.start, spec.stop))
    taken = model
    if subject.near is not None:
        taken = ReprogrammedModel(model.input_transform, subject.near, model.label_mapping)
    with exact_arithmetic(model), subject.naming_samples(context):
        rows = canvas_rows(
            taken,
            images,
            kind=spec.kernel,
            first_sample=spec.start,
            storage=None if subject.near is None else torch.bfloat16,
            on_progress=lambda done, total: context.observer.progress(done, total, unit="image"),
        )
    file = context.scratch / f"rows-{spec.start}-{spec.stop}.safetensors"
    write_rows(file, rows)
    result = {
        "samples": [spec.start, spec.stop],
        "size_bytes": file.stat().st_size,
        "timing": {"seconds": watch.total(), "phases": watch.phases()},
    }
    return JobOutcome(result=result, file=file)

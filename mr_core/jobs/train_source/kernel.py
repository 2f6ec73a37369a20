"""The source network's own tangent kernel, in all its parameters."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.datasets.splits import stratified_sample
from mr_core.jobs.context import JobContext
from mr_core.jobs.outcome import SpectrumContent
from mr_core.jobs.train_source.spec import SourceKernel
from mr_core.ntk.empirical import require_kernel_memory, tangent_kernel
from mr_core.ntk.infinite import fully_connected_ntk
from mr_core.ntk.kernel import KernelPart
from mr_core.ntk.spectrum import eigendecomposition, resolution_limit, spectrum
from mr_core.reprogrammed import SourceInTraining
from mr_core.trainers.trainer import LabelledInputs


def kernel_sample(spec: SourceKernel, data: LabelledInputs, *, n_classes: int, seed: int) -> NDArray[np.int64]:
    """Places in the training part, stratified by class; KernelError where the kernel would be over the cap."""
    chosen = stratified_sample(data.labels, spec.samples, seed)
    require_kernel_memory(spec.kernel, n_samples=len(chosen), n_outputs=n_classes)
    return chosen


def network_spectrum(
    spec: SourceKernel, model: SourceInTraining, inputs: Tensor, labels: NDArray[np.int64], context: JobContext
) -> SpectrumContent:
    """Spectrum of the kernel as the network stands; KernelError over the memory cap."""
    kernel = tangent_kernel(
        model,
        inputs,
        kind=spec.kernel,
        on_progress=lambda done, total: context.observer.progress(done, total, unit="image"),
    )
    total = kernel.total()
    targets = functional.one_hot(torch.from_numpy(labels), len(context.dataset.classes)).to(torch.float64)
    read = spectrum(kernel, total, eigendecomposition(total, kind=spec.kernel), targets)
    return SpectrumContent(eigenvalues=read.eigenvalues, label_energy=read.label_energy, summary=read.summary)


def infinite_width_summary(inputs: Tensor, *, depth: int) -> dict[str, Any]:
    """Of the limit of an `mlp` of that depth in NTK parametrisation: the same for every output, `(n, n)`."""
    matrix = fully_connected_ntk(inputs.flatten(1), depth=depth)
    values = eigendecomposition(KernelPart(matrix)).values
    largest, smallest = float(values[0]), float(values[-1])
    limit = resolution_limit(len(values), largest)
    return {
        "n_samples": len(values),
        "lambda_max": largest,
        "lambda_min": smallest if smallest > limit else None,
        "numerical_rank": int((values > limit).sum()),
        "trace": float(matrix.trace()),
        "resolution": {"limit": limit, "reason": None if smallest > limit else "below_precision"},
    }

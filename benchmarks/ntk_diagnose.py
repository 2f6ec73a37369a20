"""Where the time of a diagnosis goes, and the structured kernel against the general path, in one run.

    python -m benchmarks.ntk_diagnose [--samples 200] [--classes 10] [--general-samples 8]

The frame prompt of `builtin/mini-clip` with a frequent mapping, on random images: the cost depends on neither. The
general path (vmap over reverse-mode Jacobians) is far slower, so it is timed on a few samples and both are compared
per sample; the kernels of those samples must agree. A few steps of training give what 5,000 images x 20 epochs would
take, and the share that the diagnosis is of it. Times are of a shared machine: quote the ratios.
"""

import argparse
import copy
import os
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.evaluation import predict_logits
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.diagnose.spec import SHORT_TRAINING_SAMPLES, short_trainer
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.ntk import tangent_kernel
from mr_core.ntk.linear_regime import first_steps, linear_regime
from mr_core.ntk.prediction import held_out_logits, stratified_folds, training_targets
from mr_core.ntk.spectrum import eigendecomposition, spectrum
from mr_core.observer import Observer
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers.trainer import LabelledImages, TrainingRun

T = TypeVar("T")
STEPS, BATCH = 5, 64
TRAINED_IMAGES = 5000 * 20


class Opaque(nn.Module):
    """Hides a reprogrammed model's structure, which leaves the general path."""

    def __init__(self, model: ReprogrammedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--general-samples", type=int, default=8)
    options = parser.parse_args()

    backbone = accelerate(load_backbone(MINI_CLIP))
    transform = PaddingSpec().build(backbone.preprocessing)
    mapping = FrequentSpec().build(backbone, [str(i) for i in range(options.classes)])
    model = ReprogrammedModel(transform, backbone, mapping)
    generator = torch.Generator().manual_seed(0)
    size = transform.image_size
    images = torch.rand(options.samples, 3, size, size, generator=generator)
    labels = torch.arange(options.samples) % options.classes
    targets = nn.functional.one_hot(labels, options.classes).double()

    print(f"{options.samples} samples x {options.classes} classes, {transform.delta.numel()} parameters")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    kernel, structured_s = timed("kernel, structured path", lambda: tangent_kernel(model, images))
    total = kernel.total()
    eigen, eigen_s = timed("eigen-decomposition", lambda: eigendecomposition(total))
    _, scores_s = timed("spectrum and scores", lambda: spectrum(kernel, total, eigen, targets))
    folds = stratified_folds(labels.numpy(), torch.arange(options.samples).numpy(), n_folds=5, seed=0)
    initial = torch.randn(options.samples, options.classes, generator=generator)
    _, predicted_s = timed("predicted accuracy", lambda: held_out_logits(eigen, targets, folds, lambda _: initial))
    parameters = [transform.delta]
    measured = (model, images, training_targets(initial, targets), eigen)
    _, step_s = timed("one step of four sizes", lambda: linear_regime(*measured, parameters=parameters, batch_size=64))
    _, steps_s = timed("first steps", lambda: first_steps(*measured, parameters=parameters, batch_size=64))
    _, short_s = timed("short training on both halves", lambda: _short_training(model, images, labels))
    print(f"peak RSS so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")

    few = images[: options.general_samples]
    general, general_s = timed(
        f"kernel of {len(few)} samples, general path",
        lambda: tangent_kernel(Opaque(model), few, parameters=parameters).total().matrix,
    )
    structured = tangent_kernel(model, few).total().matrix  # the same batch, so the same side of every ReLU's kink
    difference = float((general - structured).norm() / general.norm())
    ratio = (general_s / len(few)) / (structured_s / options.samples)
    print(f"general over structured, CPU time a sample: {ratio:.1f}x; relative difference {difference:.1e}")
    _, training_s = timed(f"{STEPS} steps of training, {BATCH} images each", lambda: _train(model, images, labels))
    diagnosis_s = structured_s + eigen_s + scores_s + predicted_s + step_s + steps_s + short_s
    whole_s = training_s / (STEPS * BATCH) * TRAINED_IMAGES
    print(f"diagnosis over the training of 5,000 images x 20 epochs, CPU time: {diagnosis_s / whole_s:.1%}")


def _short_training(model: ReprogrammedModel, images: torch.Tensor, labels: torch.Tensor) -> None:
    """As `diagnose` trains on each half of at most 200 samples and judges on the other."""
    used = min(SHORT_TRAINING_SAMPLES, len(labels))
    data = LabelledImages(images=(255 * images[:used]).byte().numpy(), labels=labels[:used].numpy())
    device = torch.device("cpu")
    halves = [LabelledImages(images=data.images[part::2], labels=data.labels[part::2]) for part in (0, 1)]
    for trained, judged in (halves, halves[::-1]):
        adapter = copy.deepcopy(model)
        run = TrainingRun(train=trained, validation=None, observer=Observer(), device=device, seed=0)
        short_trainer(len(trained)).build().train(adapter, run)
        predict_logits(adapter, judged, device, observer=run.observer)


def _train(model: ReprogrammedModel, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(model.adapter_parameters(), lr=0.01)
    for step in range(STEPS):
        chosen = torch.arange(step * BATCH, (step + 1) * BATCH) % len(images)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def timed(what: str, work: Callable[[], T]) -> tuple[T, float]:
    """Do it once; print the seconds, and return those of CPU time, which a busy machine changes least."""
    start, start_cpu = time.perf_counter(), time.process_time()
    done = work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"{what:<40}{seconds:8.2f} s{cpu_seconds:10.2f} s of CPU", flush=True)
    return done, cpu_seconds


if __name__ == "__main__":
    main()

"""What a training step of every method costs beside the forward and backward passes it needs.

    python -m benchmarks.method_step [--backbone builtin/mini-clip] [--rounds 5]

A step as the trainer takes it (batch of 64, optimiser's step included), against forward and backward through the fast
form of the backbone alone, from canvases that ask for a gradient, of as many canvases (of a trainer without gradients:
its forward passes). FLOPs as torch counts them, multiply and add as two; CPU time is the median of interleaved rounds,
in the trainers' allocator. Text mappings weigh the 81 templates of ten classes.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.environment import ALLOCATOR, allocator_settings, describe_machine
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.input_transforms import INPUT_TRANSFORMS
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.low_rank.spec import LowRankSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings import LABEL_MAPPINGS
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.linear.spec import LinearSpec
from mr_core.label_mappings.probabilistic_reweighting.spec import ProbabilisticReweightingSpec
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers import TRAINERS
from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.cma_es.spec import CmaEsSpec
from mr_core.trainers.gradient.spec import GradientSpec
from mr_core.trainers.losses import TrainingLoss
from mr_core.trainers.rules import BatchLoss
from mr_core.trainers.spsa.spec import SpsaSpec
from mr_core.trainers.trainer import LabelledImages
from mr_core.trainers.zeroth_order.spec import ZerothOrderSpec

BATCH, CLASSES = 64, 10
NAMES = [str(i) for i in range(CLASSES)]
Method = tuple[str, InputTransformSpec, LabelMappingSpec, TrainerSpec]


def main() -> None:
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.method_step", *sys.argv[1:]], dict(allocator_settings())
        )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=MINI_CLIP)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    backbone = accelerate(load_backbone(options.backbone))
    print(describe_machine(), f"; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{options.backbone}, {backbone.canvas_size} px, batch {BATCH}, {options.rounds} interleaved rounds")
    print(f"{'method':58} {'GFLOP an image':>15} {'FLOPs':>6} {'CPU time':>9}   step over the passes it needs")
    for name, transform, mapping, trainer in methods():
        print(_row(name, transform, mapping, trainer, backbone, rounds=options.rounds), flush=True)
    print(f"  load at the end: {os.getloadavg()[0]:.1f}")


def methods() -> Iterator[Method]:
    """Every input transform under a linear head, every mapping in a frame, every trainer on a prompt of low rank."""
    gradient = GradientSpec()
    for kind, transform in INPUT_TRANSFORMS.items():
        spec = transform()
        grouped = ProbabilisticReweightingSpec(clusters=spec.views) if spec.views > 1 else LinearSpec()
        yield f"{kind} + {grouped.kind}, gradient", spec, grouped, gradient
    for kind, mapping in LABEL_MAPPINGS.items():
        yield f"padding + {kind}, gradient", PaddingSpec(), mapping(), gradient
    small = {
        "zeroth_order": ZerothOrderSpec(directions=5),
        "spsa": SpsaSpec(draws=2),
        "cma_es": CmaEsSpec(population=6),
    }
    for kind in TRAINERS:
        if kind != "gradient":
            yield f"low_rank + linear, {kind}", LowRankSpec(), LinearSpec(), small[kind]


def _row(
    name: str,
    transform: InputTransformSpec,
    mapping: LabelMappingSpec,
    trainer: TrainerSpec,
    backbone: Backbone,
    *,
    rounds: int,
) -> str:
    model = ReprogrammedModel(transform.build(backbone.preprocessing), backbone, mapping.build(backbone, NAMES))
    side = model.input_transform.image_size
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, 3, side, side), dtype=np.uint8)
    data = LabelledImages(images=images, labels=np.arange(BATCH) % CLASSES)
    with torch.no_grad():
        read = [model.backbone_outputs(data.batch(part, torch.device("cpu"))) for part in _passes(model)]
    model.label_mapping.fit(torch.cat(read), torch.from_numpy(data.labels))
    with torch.no_grad():
        for parameter in model.adapter_parameters():
            parameter.add_(1e-3)  # a head at zero would hand no gradient back
    loss = BatchLoss(TrainingLoss(trainer, data.labels), model, data, np.arange(BATCH), torch.device("cpu"))
    parameters = model.adapter_parameters()
    named = {str(index): parameter for index, parameter in enumerate(parameters)}
    rule = trainer.build().rule(named, seed=0) if parameters else None
    if rule is None:
        return f"{name:58} nothing to train"
    canvases = torch.rand(BATCH * model.input_transform.views, 3, backbone.canvas_size, backbone.canvas_size)
    reads = model.label_mapping.reads
    if isinstance(trainer, GradientSpec):
        needed = lambda: _forward_and_backward(backbone, canvases, reads)  # noqa: E731
    else:
        n_passes = {"zeroth_order": 6, "spsa": 4, "cma_es": 6}[trainer.kind]
        needed = lambda: _forward(backbone, canvases, reads, n_passes)  # noqa: E731
    model.train()
    sides = (lambda: rule.move(loss, step=0, steps_per_epoch=1), needed)
    flops = [_flops(work) for work in sides]
    times: list[list[float]] = [[], []]
    for index in range(rounds + 1):
        for kept, work in zip(times, sides, strict=True):
            start = time.process_time()
            work()
            if index:
                kept.append(time.process_time() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return f"{name:58} {flops[0] / BATCH / 1e9:15.3f} {flops[0] / flops[1]:6.2f} {ratio:9.2f}"


def _passes(model: ReprogrammedModel) -> list[slice]:
    return [slice(start, start + model.batch_limit) for start in range(0, BATCH, model.batch_limit)]


def _forward_and_backward(backbone: Backbone, canvases: Tensor, reads: str) -> None:
    for part in canvases.split(backbone.chunk_size):
        leaf = part.clone().requires_grad_()
        backbone(leaf, reads).sum().backward()


@torch.no_grad()
def _forward(backbone: Backbone, canvases: Tensor, reads: str, n_passes: int) -> None:
    for _ in range(n_passes):
        for part in canvases.split(backbone.chunk_size):
            backbone(part, reads)


def _flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()

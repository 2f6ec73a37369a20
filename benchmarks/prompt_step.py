"""The prompt step of MobileNetV2: a plain loop over the stock timm model against the fast form, same allocator.

Prints images a second of both (CPU time and wall, medians of interleaved rounds), their ratio, the largest memory,
and how far the prompt's gradient lies from float64 and from the stock model. Real weights and images where the test
data is present, else random weights with calibrated BatchNorm.
"""

import copy
import os
import resource
import statistics
import sys
import time
import zipfile
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.environment import ALLOCATOR, allocator_settings, describe_machine, test_data
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.calibration import calibrate_batch_norm
from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.datasets.images import open_image, prepare_image
from mr_core.engine import accelerate
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.reprogrammed import ReprogrammedModel

BATCH, ROUNDS, IMAGE_SIZE, CLASSES = 64, 7, 32, 10


def main() -> None:
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.prompt_step"], dict(allocator_settings()))
    stock, images = _backbone(), _images()
    labels = torch.arange(BATCH) % CLASSES
    plain, fast = _model(stock), _model(accelerate(stock))
    print(describe_machine(), f"; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"MobileNetV2, 224 px, frame around {IMAGE_SIZE} px, batch {BATCH}, fp32, {ROUNDS} interleaved rounds")
    cpu, wall = _measure({
        "plain loop, stock model": lambda: _plain_step(plain, images, labels),
        f"fast form, passes of {fast.backbone.chunk_size}": lambda: _step(fast, images, labels),
    })  # fmt: skip
    for name in cpu:
        print(f"  {name}: {BATCH / cpu[name]:.1f} images/s of CPU time, {BATCH / wall[name]:.1f} images/s wall")
    slow, quick = cpu
    print(f"  ratio: {cpu[slow] / cpu[quick]:.2f} (CPU time), {wall[slow] / wall[quick]:.2f} (wall)")
    print(f"  largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    _compare_gradients(stock, images[:16], labels[:16])


def _backbone() -> Backbone:
    description = BackboneDescription(
        id="timm:mobilenetv2_100",
        library="timm",
        architecture="mobilenetv2_100",
        arguments={"pad_type": "same"},
        preprocessing=Preprocessing(size=224, mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    data = test_data()
    if data is not None:
        return load_backbone(description, weights=data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors")
    backbone = load_backbone(description.model_copy(update={"random_seed": 0}))
    calibrate_batch_norm(backbone, torch.rand(16, 3, 224, 224))
    return backbone


def _images() -> Tensor:
    data = test_data()
    if data is None:
        return torch.rand(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    with zipfile.ZipFile(data / "images" / "cifar10.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if name.startswith("train/") and not name.endswith("/")]
        prepared = [
            prepare_image(open_image(archive.read(name)), size=IMAGE_SIZE, fit="stretch", interpolation="bicubic")
            for name in names[:: len(names) // BATCH][:BATCH]
        ]
    return torch.from_numpy(np.stack(prepared)).float() / 255


def _model(backbone: Backbone) -> ReprogrammedModel:
    mapping = FrequentSpec(ties="first").build(backbone, [str(i) for i in range(CLASSES)])
    return ReprogrammedModel(PaddingSpec(image_size=IMAGE_SIZE).build(backbone.preprocessing), backbone, mapping)


def _plain_step(model: ReprogrammedModel, images: Tensor, labels: Tensor) -> None:
    """As published code does it: the whole batch forward, the whole batch backward."""
    model.zero_grad(set_to_none=True)
    functional.cross_entropy(model(images), labels).backward()


def _step(model: ReprogrammedModel, images: Tensor, labels: Tensor) -> None:
    """As the trainer does it: gradients of passes of `chunk_size` images add up."""
    model.zero_grad(set_to_none=True)
    size = model.backbone.chunk_size
    for part, targets in zip(images.split(size), labels.split(size), strict=True):
        (functional.cross_entropy(model(part), targets, reduction="sum") / len(images)).backward()


def _measure(steps: dict[str, Callable[[], None]]) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of CPU time and of wall time; the sides take turns, after one round to warm up."""
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, step in steps.items():
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            step()
            cpu[name].append(time.process_time() - cpu_start)
            wall[name].append(time.perf_counter() - wall_start)
    return tuple({name: statistics.median(values[1:]) for name, values in side.items()} for side in (cpu, wall))


def _compare_gradients(stock: Backbone, images: Tensor, labels: Tensor) -> None:
    """Of the prompt, image by image, at a frame that is not flat."""
    exact = _gradients(copy.deepcopy(stock).double(), images.double(), labels)
    plain = _gradients(stock, images, labels)
    fast = _gradients(accelerate(stock), images, labels)
    print(f"  gradient of the prompt over {len(images)} images, relative difference")
    for name, found, expected in (
        ("fast form from float64", fast, exact),
        ("stock model from float64", plain, exact),
        ("fast form from the stock model", fast, plain),
    ):
        each = (found - expected).norm(dim=1) / expected.norm(dim=1)
        whole = float((found.sum(0) - expected.sum(0)).norm() / expected.sum(0).norm())
        print(
            f"    {name}: batch {whole:.1e}; by image median {float(each.median()):.1e}, "
            f"largest {float(each.max()):.1e}, {int((each <= 1e-5).sum())} of {len(each)} within 1e-5"
        )
    print("    (beyond 1e-5: rounding moves some value across a kink of ReLU6, and its gate, so the gradient, jumps)")


def _gradients(backbone: Backbone, images: Tensor, labels: Tensor) -> Tensor:
    model = _model(backbone).to(images.dtype)
    with torch.no_grad():
        delta = model.input_transform.delta
        delta.copy_(torch.randn(delta.shape, generator=torch.Generator().manual_seed(1)))
    rows = []
    for image, label in zip(images, labels, strict=True):
        model.zero_grad(set_to_none=True)
        functional.cross_entropy(model(image[None]), label[None]).backward()
        rows.append(model.input_transform.delta.grad.double().clone())
    return torch.stack(rows)


if __name__ == "__main__":
    main()

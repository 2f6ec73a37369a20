"""The prompt step of CLIP ViT-B-32: a plain loop over the stock open_clip model against the fast forms, same allocator.

Prints images a second of each (CPU time and wall, medians of interleaved rounds), the median ratio of a round, the
largest memory of each side in a process of its own, and how far the prompt's gradient lies from float64 and from the
stock model. Random weights; images of uniform noise in a frame that is not flat.
"""

import copy
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.environment import ALLOCATOR, allocator_settings, describe_machine
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.engine.bfloat16 import has_bfloat16_arithmetic
from mr_core.engine.frozen_linear import gains_by_packing

ARCHITECTURE = "open_clip:ViT-B-32/laion2b_s34b_b79k"
BATCH, ROUNDS, IMAGE_SIZE, CLASSES = 32, 5, 128, 10
PLAIN, FLOAT32, BFLOAT16 = "plain loop, stock model", "fast form, float32", "fast form, bfloat16"
PRODUCTS = "its matrix products alone, float32"
TOKENS, WIDTH, BLOCKS = 50, 768, 12


def main() -> None:
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(
            sys.executable, [sys.executable, "-m", "benchmarks.vit_step", *sys.argv[1:]], dict(allocator_settings())
        )
    logging.disable(logging.WARNING)  # open_clip tells that the weights are random
    if len(sys.argv) > 1:
        _print_memory(sys.argv[1])
        return
    stock = load_backbone(f"random:{ARCHITECTURE}", random_seed=0)
    sides = {PLAIN: stock, FLOAT32: accelerate(stock), BFLOAT16: accelerate(stock, precision="bfloat16")}
    steps = {name: _step(backbone, name) for name, backbone in sides.items()}
    packed = "packed" if gains_by_packing(torch.float32) else "torch's own, on Intel as fast"
    emulated = "" if has_bfloat16_arithmetic() else "; this processor has no bfloat16 arithmetic, it is emulated"
    print(describe_machine(), f"; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"CLIP ViT-B-32, 224 px, frame around {IMAGE_SIZE} px, batch {BATCH}, {ROUNDS} interleaved rounds")
    print(f"  float32 products: {packed}{emulated}")
    cpu, wall = _measure({**steps, PRODUCTS: _products()})
    for name in (*sides, PRODUCTS):
        memory = f"; largest memory {_memory_of(name)} MB" if name in sides else ": what no exact float32 form can pass"
        print(
            f"  {name}: {BATCH / statistics.median(cpu[name]):.1f} images/s of CPU time, "
            f"{BATCH / statistics.median(wall[name]):.1f} images/s wall; "
            f"ratio {_ratio(cpu, name):.2f} (CPU time), {_ratio(wall, name):.2f} (wall){memory}"
        )
    print(f"  load at the end: {os.getloadavg()[0]:.1f}")
    _compare_gradients(sides)


def _canvases(n: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Images in the middle of empty canvases, the mask of the frame, and a prompt."""
    generator = torch.Generator().manual_seed(0)
    border = (224 - IMAGE_SIZE) // 2
    images = torch.rand(n, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    mask = functional.pad(torch.zeros(IMAGE_SIZE, IMAGE_SIZE), (border,) * 4, value=1.0)
    prompt = torch.rand(3, 224, 224, generator=generator)
    return functional.pad(images, (border,) * 4), mask, prompt


def _head() -> Tensor:
    """Class embeddings of unit length, times CLIP's logit scale."""
    return 100 * functional.normalize(torch.randn(512, CLASSES, generator=torch.Generator().manual_seed(1)), dim=0)


def _step(backbone: Backbone, name: str) -> Callable[[], Tensor]:
    """Forward and backward of a batch; the fast forms in passes of `chunk_size`, as the trainer does it."""
    canvases, mask, start = _canvases()
    prompt, head, labels = start.requires_grad_(), _head(), torch.arange(BATCH) % CLASSES
    size = BATCH if name == PLAIN else backbone.chunk_size

    def step() -> Tensor:
        prompt.grad = None
        for part, targets in zip(canvases.split(size), labels.split(size), strict=True):
            logits = functional.normalize(backbone(part + mask * prompt), dim=1) @ head
            (functional.cross_entropy(logits, targets, reduction="sum") / BATCH).backward()
        assert prompt.grad is not None
        return prompt.grad

    return step


def _products() -> Callable[[], Tensor]:
    """The blocks' linear maps forward, and backward to their inputs; of the last block keys and values alone.

    Attention's own products, norms and activations are left out, and so is the embedding of the patches.
    """
    shapes = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)] * (BLOCKS - 1)
    shapes.append((WIDTH, 2 * WIDTH))
    weights = {shape: torch.randn(shape[1], shape[0]) for shape in set(shapes)}
    rows = {width: torch.randn(BATCH * TOKENS, width) for width in {width for shape in shapes for width in shape}}

    def step() -> Tensor:
        result = rows[WIDTH]
        for shape in shapes:
            functional.linear(rows[shape[0]], weights[shape])
            result = rows[shape[1]] @ weights[shape]
        return result

    return step


def _measure(steps: dict[str, Callable[[], Tensor]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of CPU time and of wall time, round by round; the sides take turns, after one round to warm up."""
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(ROUNDS + 1):
        for name, step in steps.items():
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            step()
            if index:
                cpu[name].append(time.process_time() - cpu_start)
                wall[name].append(time.perf_counter() - wall_start)
    return cpu, wall


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
    """The median over rounds: what else runs on the machine weighs on both sides of one round alike."""
    return statistics.median(plain / own for plain, own in zip(seconds[PLAIN], seconds[name], strict=True))


def _memory_of(name: str) -> int:
    command = [sys.executable, "-m", "benchmarks.vit_step", name]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _print_memory(name: str) -> None:
    """Of this process, which builds one side, from the stock model on, and takes two steps."""
    backbone = load_backbone(f"random:{ARCHITECTURE}", random_seed=0)
    if name != PLAIN:
        backbone = accelerate(backbone, precision="float32" if name == FLOAT32 else "bfloat16")
    step = _step(backbone, name)
    step()
    step()
    # Not getrusage: its maximum is handed down from the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024)


def _compare_gradients(sides: dict[str, Backbone]) -> None:
    """Of eight images, image by image, and of the prompt they share."""
    found = {name: _gradients(backbone) for name, backbone in sides.items()}
    exact = _gradients(copy.deepcopy(sides[PLAIN]).double())
    print(f"  gradient to {len(exact)} canvases in the frame, relative difference")
    pairs = [(name, "float64", exact) for name in sides] + [(FLOAT32, "the stock model", found[PLAIN])]
    for name, reference, expected in pairs:
        each = (found[name] - expected).norm(dim=1) / expected.norm(dim=1)
        whole = float((found[name].sum(0) - expected.sum(0)).norm() / expected.sum(0).norm())
        cosine = float(functional.cosine_similarity(found[name].sum(0), expected.sum(0), dim=0))
        print(
            f"    {name}, from {reference}: prompt {whole:.1e} (cosine {cosine:.5f}); "
            f"by image median {float(each.median()):.1e}, largest {float(each.max()):.1e}"
        )


def _gradients(backbone: Backbone) -> Tensor:
    canvases, mask, prompt = (tensor.to(backbone.mean.dtype) for tensor in _canvases(8))
    leaf = (canvases + mask * prompt).requires_grad_()
    logits = functional.normalize(backbone(leaf), dim=1) @ _head().to(leaf.dtype)
    functional.cross_entropy(logits, torch.arange(8) % CLASSES, reduction="sum").backward()
    assert leaf.grad is not None
    return (leaf.grad * mask).double().flatten(1)


if __name__ == "__main__":
    main()

"""Tangent kernels: the structured paths against torch.func's tutorial, eigenpairs without a matrix.

    python -m benchmarks.ntk [--samples 8] [--rounds 3] [--eigen-samples 16] [--eigenpairs 50] [--stored-samples 2000]
    python -m benchmarks.ntk --only stored
    python -m benchmarks.ntk --only large --samples 1000

First the whole kernel of CLIP ViT-B-32 (random weights, 10 classes): the Jacobian contraction of torch.func's tutorial
on neural tangent kernels, `vmap(jacrev)` over the stock model, 8 images at a time, against the structured path in
float32 over the fast form. Both get the same allocator and take turns; the relative difference is that of the kernels.
Then kernels of source networks in all their parameters, 64 inputs and 10 classes, by layers: a CNN and a ResNet-like
network on maps of the size of CLIP ViT-B-32's, a CNN and an MLP on images; also against nngeometry's Gram matrix where
that is installed (`pip install --no-deps nngeometry`; no part of the project's environment). Last the largest
eigenpairs of builtin/mini-clip's kernel from products alone, against the dense kernel and all its eigenvalues: what is
saved there is the memory of (N C)^2 numbers, and it costs time. Products go through the stock model, whose operators
have forward-mode rules, the dense kernel through the fast form. And the same of 20,000 rows from stored Jacobian rows,
as a diagnosis of that size takes them: in blocks, each in a file, and no matrix. `large`, which runs only when asked
for, is the kernel of ViT-B-32 of many images, once, by the way of a large diagnosis: rows in files. Times are of a
shared machine: quote the ratios.
"""

import argparse
import copy
import logging
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Set
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.environment import ALLOCATOR, allocator_settings, describe_machine
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.text.mapping import TextMapping
from mr_core.ntk import empirical_ntk
from mr_core.ntk.canvas import canvas_rows, factor_shapes
from mr_core.ntk.from_rows import kernel_of_rows, operator_of_rows
from mr_core.ntk.lanczos import top_eigenpairs
from mr_core.ntk.operator import KernelOperator
from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.stored_rows import StoredRows, write_rows
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.sources.base import Shape, SourceSpec
from mr_core.sources.cnn.spec import CnnSpec
from mr_core.sources.mlp.spec import MlpSpec
from mr_core.sources.network import GaussianLayer
from mr_core.sources.resnet.spec import ResnetSpec

T = TypeVar("T")

ARCHITECTURE = "random:open_clip:ViT-B-32/laion2b_s34b_b79k"
CLASSES, PEER_IMAGES = 10, 8
STRETCH = 144  # samples of a file of rows
INPUTS = 64  # of a source network
NETWORKS: tuple[tuple[str, SourceSpec, Shape], ...] = (
    ("CNN of 3 layers, width 64, on 7x7 maps of 768 channels", CnnSpec(depth=3, width=64), (768, 7, 7)),
    ("ResNet-like, 2 blocks, width 64, on the same", ResnetSpec(depth=2, width=64), (768, 7, 7)),
    ("CNN of 2 layers, width 32, on 32x32 images", CnnSpec(depth=2, width=32), (3, 32, 32)),
    ("MLP of 3 layers, width 256, on 32x32 images", MlpSpec(depth=3, width=256), (3, 32, 32)),
)


def main() -> None:
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.ntk", *sys.argv[1:]], dict(allocator_settings()))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8, help="images in the kernel of ViT-B-32 (64 takes long)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side is measured")
    parser.add_argument("--eigen-samples", type=int, default=16, help="images in the kernel of mini-clip")
    parser.add_argument("--eigenpairs", type=int, default=50)
    parser.add_argument("--stored-samples", type=int, default=2000, help="images whose Jacobian rows are stored")
    parser.add_argument("--only", choices=("tutorial", "networks", "products", "stored", "large"), help="one section")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip tells that the weights are random
    print(describe_machine(), f"; torch {torch.__version__}, {torch.get_num_threads()} threads")
    if options.only in (None, "tutorial"):
        _compare_with_the_tutorial(options.samples, options.rounds)
    for name, spec, shape in NETWORKS if options.only in (None, "networks") else ():
        _compare_network(name, spec, shape, options.rounds)
    if options.only in (None, "products"):
        _compare_eigenpairs(options.eigen_samples, options.eigenpairs)
    if options.only in (None, "stored"):
        _eigenpairs_of_stored_rows(options.stored_samples, options.eigenpairs)
    if options.only == "large":
        _large_kernel(options.samples)
    print(f"  load at the end: {os.getloadavg()[0]:.1f}")


def _large_kernel(n_samples: int) -> None:
    backbone = accelerate(load_backbone(ARCHITECTURE, random_seed=0))
    transform = PaddingSpec(image_size=164).build(backbone.preprocessing)
    generator = torch.Generator().manual_seed(0)
    model = ReprogrammedModel(transform, backbone, _random_texts(backbone, generator))
    images = torch.rand(n_samples, 3, transform.image_size, transform.image_size, generator=generator)
    print(
        f"CLIP ViT-B-32, 224 px, frame around {transform.image_size} px, {transform.delta.numel()} parameters, "
        f"{n_samples} images x {CLASSES} classes, once"
    )
    with TemporaryDirectory() as folder, exact_arithmetic(model):
        rows, cpu, wall = _timed(lambda: _stored_rows(model, images, Path(folder)))
        print(f"  rows: {cpu:.0f} s of CPU time, {wall:.0f} s wall", flush=True)
        kernel, cpu, wall = _timed(lambda: kernel_of_rows(model, images, rows, kind="full"))
    matrix = kernel.groups["input_transform"].matrix
    print(f"  kernel: {cpu:.0f} s of CPU time, {wall:.0f} s wall; trace {float(matrix.trace()):.6g}")
    print(f"  peak memory of the process: {_peak_bytes() / 1e9:.2f} GB")


def _random_texts(backbone: Backbone, generator: torch.Generator) -> TextMapping:
    texts = torch.randn(CLASSES, backbone.width("image_text"), generator=generator)
    return TextMapping(functional.normalize(texts, dim=1))


def _compare_with_the_tutorial(n_samples: int, rounds: int) -> None:
    stock = load_backbone(ARCHITECTURE, random_seed=0)
    generator = torch.Generator().manual_seed(0)
    transform, mapping = PaddingSpec().build(stock.preprocessing), _random_texts(stock, generator)
    models = [ReprogrammedModel(transform, backbone, mapping) for backbone in (stock, accelerate(stock))]
    images = torch.rand(n_samples, 3, transform.image_size, transform.image_size, generator=generator)
    print(
        f"CLIP ViT-B-32, 224 px, frame around {transform.image_size} px, {transform.delta.numel()} parameters, "
        f"{n_samples} images x {CLASSES} classes, {rounds} rounds"
    )
    _compare(
        lambda: _tutorial_kernel(models[0], images, {"input_transform.delta"}, PEER_IMAGES),
        lambda: empirical_ntk(models[1], images),
        rounds,
        n_samples,
    )


def _compare_network(name: str, spec: SourceSpec, shape: Shape, rounds: int) -> None:
    torch.manual_seed(0)
    network = spec.build(shape, CLASSES)
    inputs = torch.randn(INPUTS, *shape, generator=torch.Generator().manual_seed(0))
    names = {name for name, _ in network.named_parameters()}
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{name}: {n_parameters} parameters, {INPUTS} inputs x {CLASSES} classes, {rounds} rounds")
    kernel = _compare(
        lambda: _tutorial_kernel(network, inputs, names, 2 * PEER_IMAGES),
        lambda: empirical_ntk(network, inputs, memory_cap=8 * 2**30),
        rounds,
        INPUTS,
    )
    if find_spec("nngeometry") is not None:
        peer, cpu, _ = _timed(lambda: _nngeometry_kernel(network, inputs))
        _, own, _ = _timed(lambda: empirical_ntk(network, inputs, memory_cap=8 * 2**30))
        difference = float((kernel - peer).norm() / peer.norm())
        print(
            f"  nngeometry {version('nngeometry')}: {1000 * cpu / INPUTS:.0f} ms of CPU time an input, once; "
            f"ratio {cpu / own:.1f}; relative difference {difference:.1e}"
        )


def _compare(tutorial: Callable[[], Tensor], structured: Callable[[], Tensor], rounds: int, n_samples: int) -> Tensor:
    """Both in turn, `rounds` times; the structured kernel."""
    kernels: list[Tensor] = []
    cpu: list[list[float]] = [[], []]
    wall: list[list[float]] = [[], []]
    for _ in range(rounds):
        kernels = []
        for index, side in enumerate((tutorial, structured)):
            kernel, cpu_seconds, seconds = _timed(side)
            kernels.append(kernel)
            cpu[index].append(cpu_seconds)
            wall[index].append(seconds)
    for name, cpu_times, times in zip(("torch.func tutorial", "structured, float32"), cpu, wall, strict=True):
        print(
            f"  {name}: {1000 * statistics.median(cpu_times) / n_samples:.0f} ms of CPU time an input, "
            f"{1000 * statistics.median(times) / n_samples:.0f} ms wall"
        )
    ratios = [statistics.median(a / b for a, b in zip(*pair, strict=True)) for pair in (cpu, wall)]
    difference = float((kernels[1] - kernels[0]).norm() / kernels[0].norm())
    print(f"  ratio: {ratios[0]:.1f} (CPU time), {ratios[1]:.1f} (wall); relative difference {difference:.1e}")
    return kernels[1]


def _tutorial_kernel(module: nn.Module, inputs: Tensor, names: Set[str], at_once: int) -> Tensor:
    """`empirical_ntk_jacobian_contraction` of pytorch.org's tutorial, its sum in float64."""
    frozen = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    parameters = {name: frozen.pop(name) for name in sorted(names)}

    def outputs(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        values: Tensor = functional_call(module, {**frozen, **parameters}, (sample.unsqueeze(0),))
        return values.squeeze(0)

    kernel = torch.zeros(len(inputs) * CLASSES, len(inputs) * CLASSES, dtype=torch.float64)
    with exact_arithmetic(module):  # the plain attention: the fused one has no vmap rule
        jacobians = [
            vmap(jacrev(outputs), in_dims=(None, 0))(parameters, part) for part in torch.split(inputs, at_once)
        ]
    for name in parameters:
        rows = torch.cat([jacobian[name].flatten(2) for jacobian in jacobians]).flatten(0, 1).double()
        kernel += rows @ rows.T
    return kernel


def _nngeometry_kernel(network: nn.Module, inputs: Tensor) -> Tensor:
    """Its Gram matrix of all logits, rows in our order; of a copy in torch's own layers, as it knows no others."""
    from nngeometry.gram import GramMatrix

    peer = copy.deepcopy(network).requires_grad_(True)
    for parent in list(peer.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, GaussianLayer):
                setattr(parent, name, _torch_layer(layer))
    loader = DataLoader(TensorDataset(inputs, torch.zeros(len(inputs))), batch_size=len(inputs))
    gram: Tensor = GramMatrix(peer, loader, function=lambda *batch: peer(batch[0])).to_torch().detach()
    return gram.permute(1, 0, 3, 2).reshape(len(inputs) * CLASSES, -1).double()


def _torch_layer(layer: GaussianLayer) -> nn.Module:
    n_out, n_in, *kernel = layer.weight.shape
    same = nn.Conv2d(n_in, n_out, kernel[0], padding=kernel[0] // 2) if kernel else nn.Linear(n_in, n_out)
    same.load_state_dict(layer.state_dict())
    return same


def _compare_eigenpairs(n_samples: int, k: int) -> None:
    stock = load_backbone(MINI_CLIP)
    transform = PaddingSpec().build(stock.preprocessing)
    mapping = FrequentSpec().build(stock, [str(i) for i in range(CLASSES)])
    free, dense = (ReprogrammedModel(transform, backbone, mapping) for backbone in (stock, accelerate(stock)))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n_samples, 3, transform.image_size, transform.image_size, generator=generator)
    print(
        f"{MINI_CLIP}, frame around {transform.image_size} px, {n_samples} images x {CLASSES} classes = "
        f"{n_samples * CLASSES} rows, {k} eigenpairs"
    )
    operator = KernelOperator(free, images)
    found, free_cpu, free_wall = _timed(lambda: top_eigenpairs(operator, k, generator=generator))
    values, dense_cpu, dense_wall = _timed(lambda: torch.linalg.eigvalsh(empirical_ntk(dense, images)).flip(0)[:k])
    products = found.n_products
    print(
        f"  {products} products: {free_cpu:.1f} s of CPU time, {1000 * free_cpu / products:.0f} ms each; "
        f"{free_wall:.1f} s wall"
    )
    print(f"  dense kernel, all eigenvalues: {dense_cpu:.1f} s of CPU time; {dense_wall:.1f} s wall")
    print(f"  ratio: {dense_cpu / free_cpu:.2f} (CPU time), {dense_wall / free_wall:.2f} (wall), dense over products")
    error = float((found.values - values).abs().max() / values[0])
    residual = float(found.residuals.max() / values[0])
    print(f"  largest difference of an eigenvalue {error:.1e}, largest residual {residual:.1e}")


def _eigenpairs_of_stored_rows(n_samples: int, k: int) -> None:
    backbone = accelerate(load_backbone(MINI_CLIP))
    transform = PaddingSpec().build(backbone.preprocessing)
    model = ReprogrammedModel(transform, backbone, FrequentSpec().build(backbone, [str(i) for i in range(CLASSES)]))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n_samples, 3, transform.image_size, transform.image_size, generator=generator)
    n_rows = n_samples * CLASSES
    print(f"{MINI_CLIP}, the same from stored rows: {n_samples} images x {CLASSES} classes = {n_rows} rows")
    before = _peak_bytes()
    with TemporaryDirectory() as folder, exact_arithmetic(model):
        rows, rows_cpu, rows_wall = _timed(lambda: _stored_rows(model, images, Path(folder)))
        operator = operator_of_rows(model, images, rows)
        found, cpu, wall = _timed(lambda: top_eigenpairs(operator, k, generator=generator))
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(f"  rows, {stored / 1e9:.1f} GB in files: {rows_cpu:.0f} s of CPU time, {rows_wall:.0f} s wall")
    print(
        f"  {k} eigenpairs, {found.n_products} products: {cpu:.0f} s of CPU time, {wall:.0f} s wall; "
        f"largest residual {float(found.residuals.max() / found.values[0]):.1e} of the largest eigenvalue"
    )
    gigabytes = [size / 1e9 for size in (_peak_bytes() - before, 8 * n_rows**2)]
    print(f"  memory: {gigabytes[0]:.2f} GB above the start; the matrix alone would be {gigabytes[1]:.2f}")


def _stored_rows(model: ReprogrammedModel, images: Tensor, folder: Path) -> StoredRows:
    files, widths = [], [shape.width for shape in factor_shapes(model.input_transform, images[:1])]
    for start in range(0, len(images), STRETCH):
        part = canvas_rows(model, images[start : start + STRETCH], kind="full", first_sample=start)
        files.append(folder / f"{start}.safetensors")
        write_rows(files[-1], part)
    return StoredRows(files, widths=widths)


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What it gives, seconds of CPU time, seconds of wall time."""
    cpu_start, start = time.process_time(), time.perf_counter()
    done = work()
    return done, time.process_time() - cpu_start, time.perf_counter() - start


if __name__ == "__main__":
    main()

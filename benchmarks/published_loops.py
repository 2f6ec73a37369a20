"""Training by the published scripts of ILM-VP, BayesianLM and SMM, and by ours, on the same weights, images, allocator.

    git clone https://github.com/OPTML-Group/ILM-VP https://github.com/tmlr-group/BayesianLM ... (each into FOLDER)
    python -m benchmarks.published_loops FOLDER [--images 40] [--epochs 4] [--only ilm]

The scripts run as they are, in a process of their own, from a checkout in a folder of that name. What they fetch is
handed to them: MobileNetV2 in place of torchvision's ResNet-18, cifar10 decoded in memory in place of their loaders (no
worker processes, no augmentation), and nothing is drawn or logged. Ours is a training as a job runs it. Both pass over
the same test images after every epoch, and the accuracy is that of the best epoch on them, as the scripts have it.
Images a second are training images times epochs by the CPU time (and wall time) of the whole training: fits of the
mapping, judging and, of ours, making the fast form included, reading images and imports not.
"""

import argparse
import itertools
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.environment import allocator_settings, describe_machine, test_data
from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.datasets.images import open_image, prepare_image
from mr_core.engine import accelerate
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.input_transforms.sample_specific_mask.spec import SampleSpecificMaskSpec
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.bayesian_plus.spec import BayesianPlusSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.observer import Observer
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.torchvision_compat import declare_missing_operators
from mr_core.trainers.gradient.spec import GradientSpec
from mr_core.trainers.trainer import LabelledImages, TrainingRun

CANVAS, SMALL, BATCH = 224, 32, 64
MEAN = STD = 0.5


@dataclass(frozen=True)
class Loop:
    """A published script, and the methods it stands for."""

    folder: str
    script: str
    arguments: tuple[str, ...]
    transform: InputTransformSpec
    mapping: LabelMappingSpec
    image_size: int
    loaders: str  # the function that hands out its data
    named: dict[str, str] = field(default_factory=dict)


_BLM = ("--reprogramming", "padding", "--mapping", "blmp", "--dataset", "cifar10")
LOOPS = {
    "ilm": Loop(
        "ILM-VP", "experiments/cnn/ilm_vp.py", ("--network", "resnet18", "--dataset", "cifar10"),
        PaddingSpec(image_size=SMALL), IterativeSpec(ties="first"), SMALL, "prepare_expansive_data",
    ),
    "blm+": Loop(
        "BayesianLM", "train_vm.py", _BLM,
        PaddingSpec(image_size=SMALL), BayesianPlusSpec(), SMALL, "prepare_padding_data",
    ),
    "blm+ fast": Loop(
        "BayesianLM", "train_vm_fast.py", _BLM,
        PaddingSpec(image_size=SMALL), BayesianPlusSpec(refit="from_training"), SMALL, "prepare_padding_data",
    ),
    "smm": Loop(
        "SMM", "instancewise_vp.py", ("--network", "resnet18", "--dataset", "cifar10"),
        SampleSpecificMaskSpec(), IterativeSpec(ties="first"), CANVAS, "prepare_additive_data",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkouts are")
    parser.add_argument("--only", choices=LOOPS, nargs="*", default=list(LOOPS))
    parser.add_argument(
        "--images", type=int, default=40, help="training images of each class; half as many for testing"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--side", choices=("theirs", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_side(LOOPS[options.only[0]], options)))
        return
    print(describe_machine(), f"; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        f"MobileNetV2, {CANVAS} px, cifar10, {10 * options.images} training images, {options.epochs} epochs of {BATCH}"
    )
    print(f"{'script':28} {'CPU img/s':>17} {'wall img/s':>17} {'ratio CPU, wall':>16} {'accuracy':>14} {'memory':>14}")
    for name in options.only:
        theirs, ours = (_in_a_process(name, side, options) for side in ("theirs", "ours"))
        n = 10 * options.images * options.epochs
        rates = {key: [n / side[key] for side in (theirs, ours)] for key in ("cpu", "wall")}
        ratios = [rate[1] / rate[0] for rate in rates.values()]
        print(
            f"{LOOPS[name].folder + '/' + Path(LOOPS[name].script).name:28} "
            + " ".join(f"{rate[0]:6.1f} -> {rate[1]:6.1f}" for rate in rates.values())
            + f"  {ratios[0]:7.2f} {ratios[1]:7.2f}"
            + f"  {100 * theirs['accuracy']:4.1f} -> {100 * ours['accuracy']:4.1f}"
            + f"  {theirs['memory']:4.1f} -> {ours['memory']:3.1f} GB",
            flush=True,
        )
    print(f"  load at the end: {os.getloadavg()[0]:.1f}")


def _in_a_process(name: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    arguments = [options.folder, "--only", name, "--images", options.images, "--epochs", options.epochs, "--side", side]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.published_loops", *map(str, arguments)],
        env=allocator_settings(), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(found.stdout.splitlines()[-1]))


def _side(loop: Loop, options: argparse.Namespace) -> dict[str, float]:
    data = test_data()
    if data is None:
        raise SystemExit("the test data is absent: set MR_TEST_DATA")
    weights = data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    sets = tuple(_images(data, split, n, loop.image_size) for split, n in _splits(options.images))
    if options.side == "theirs":
        run = _theirs(loop, (options.folder / loop.folder).resolve(), weights, sets, epochs=options.epochs)
    else:
        run = _ours(loop, weights, sets, epochs=options.epochs)
    cpu, wall = time.process_time(), time.perf_counter()
    accuracy = run()
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "accuracy": accuracy,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _splits(images: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("train", images), ("test", images // 2)


def _images(data: Path, split: str, per_class: int, size: int) -> LabelledImages:
    with zipfile.ZipFile(data / "images" / "cifar10.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{split}/") and not name.endswith("/"))
        classes = sorted({name.split("/")[1] for name in names})
        kept = [[name for name in names if name.split("/")[1] == label][:per_class] for label in classes]
        images = [
            prepare_image(open_image(archive.read(name)), size=size, fit="stretch", interpolation="bicubic")
            for name in itertools.chain(*kept)
        ]
    labels = np.repeat(np.arange(len(classes)), [len(part) for part in kept])
    return LabelledImages(images=np.stack(images), labels=labels)


def _ours(loop: Loop, weights: Path, sets: tuple[LabelledImages, ...], *, epochs: int) -> Callable[[], float]:
    description = BackboneDescription(
        id="timm:mobilenetv2_100",
        library="timm",
        architecture="mobilenetv2_100",
        arguments={"pad_type": "same"},
        preprocessing=Preprocessing(size=CANVAS, mean=(MEAN,) * 3, std=(STD,) * 3),
    )
    backbone = load_backbone(description, weights=weights)

    def train() -> float:
        fast = accelerate(backbone)
        mapping = loop.mapping.build(fast, [str(label) for label in range(10)])
        model = ReprogrammedModel(loop.transform.build(fast.preprocessing), fast, mapping)
        trainer = GradientSpec(epochs=epochs, batch_size=BATCH).build()
        run = TrainingRun(train=sets[0], validation=sets[1], observer=Observer(), device=torch.device("cpu"), seed=0)
        return max(row["validation_accuracy"] for row in trainer.train(model, run).rows)

    return train


def _theirs(
    loop: Loop, folder: Path, weights: Path, sets: tuple[LabelledImages, ...], *, epochs: int
) -> Callable[[], float]:
    """The script in its own folder, with what it would fetch in place."""
    declare_missing_operators()
    import timm
    import torchvision

    network = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same")
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    torchvision.models.resnet18 = lambda **_: network
    train, test = (DataLoader(_tensors(part, loop), BATCH, shuffle=i == 0) for i, part in enumerate(sets))
    classes = [str(label) for label in range(10)]
    told = {"class_names": classes, "mask": np.zeros((SMALL, SMALL))}
    handed = ({"train": train, "test": test}, classes if loop.loaders == "prepare_additive_data" else told)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    names = {"IMAGENETCLASSES": classes, "IMAGENETNORMALIZE": {"mean": [MEAN] * 3, "std": [STD] * 3}}
    _stand_in("data", **names, **{loop.loaders: lambda *_, **__: handed}, prepare_watermarking_data=None)
    _stand_in("torch.utils.tensorboard", SummaryWriter=_Silent)
    _stand_in("tools.mapping_visualization", plot_mapping=_one_pixel)
    results = tempfile.TemporaryDirectory()
    _shorten(__import__("cfg"), Path(results.name), epochs=epochs)
    sys.argv = [loop.script, *loop.arguments, *(("--epoch", str(epochs)) if loop.folder == "ILM-VP" else ())]

    def run() -> float:
        warnings.simplefilter("ignore")
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
            left = runpy.run_path(loop.script, run_name="__main__")
        results.cleanup()
        return float(left["best_acc"])

    return run


def _tensors(images: LabelledImages, loop: Loop) -> TensorDataset:
    pixels: Tensor = torch.from_numpy(images.images).float() / 255
    if loop.loaders == "prepare_additive_data":  # the one that normalises in its loader
        pixels = (pixels - MEAN) / STD
    return TensorDataset(pixels, torch.from_numpy(images.labels))


def _shorten(settings: ModuleType, results: Path, *, epochs: int) -> None:
    """So many epochs, and results where they may be written."""
    settings.results_path = f"{results}/"
    for name in ("config_vm", "config_vm_fast"):
        if hasattr(settings, name):
            getattr(settings, name)["epoch"] = epochs
    if hasattr(settings, "get_config"):
        published = settings.get_config
        settings.get_config = lambda network: (published(network)[0], epochs, *published(network)[2:])


def _stand_in(name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module


class _Silent:
    def __init__(self, *_: object) -> None: ...
    def add_scalar(self, *_: object) -> None: ...
    def add_image(self, *_: object) -> None: ...


def _one_pixel(_matrix: object, _sequence: object, file: Any, **_: object) -> None:
    from PIL import Image

    Image.new("RGB", (1, 1)).save(file, "png")


if __name__ == "__main__":
    main()

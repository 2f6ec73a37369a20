"""Judges image towers by transfer: frame prompt on digits, linear probes, zero-shot.

Prints one JSON object per line. Each test split is touched once, by the last epoch or the validated setting.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from mr_core.backbones.builtin.mini_clip.model import WEIGHTS_FILE, MiniClip
from training.mini_clip.folding import folded
from training.mini_clip.images import CANVAS, normalised, pixels, read_split, readable, resized
from training.mini_clip.scenes import COLOURS, SHAPES, generate

TEACHER_FILE = "weights/mobilenetv2_100_imagenet_fp16.safetensors"
DIGIT_SIZE = 48
BATCH = 64
PROBE_ALPHAS = (1e1, 1e2, 1e3, 1e4, 1e5)
PROBE_SETS = ("cifar10", "gtsrb", "mnist", "pneumoniamnist")
SCENE_SEED, N_SCENES = 1, 600
TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="the shared data folder")
    arguments.add_argument("--towers", nargs="+", default=["shipped", "warm_start", "random"])
    arguments.add_argument("--parts", nargs="+", default=["probes", "zero_shot", "digits"])
    arguments.add_argument("--weights", type=Path, default=WEIGHTS_FILE, help="weights of the tower `shipped`")
    arguments.add_argument("--epochs", type=int, default=8, help="epochs of the frame prompt")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    for tower in options.towers:
        for figures in measure(tower, options):
            print(json.dumps({"tower": tower, **figures}), flush=True)


def measure(tower: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The figures of one tower, one dictionary per dataset."""
    if "digits" in options.parts:
        yield {
            "judge": "digits_frame_ilm",
            **digits_frame_prompt(build(tower, options), tower == "random", options.epochs),
        }
    if "probes" in options.parts:
        for name in PROBE_SETS:
            yield {
                "judge": "linear_probe",
                "data": name,
                **linear_probe(build(tower, options), tower == "random", options.data, name),
            }
    if "zero_shot" in options.parts and tower == "shipped":
        for name in ("caltech101", "cifar10"):
            yield {"judge": "zero_shot", "data": name, **zero_shot(build(tower, options), options.data, name)}
        yield {"judge": "zero_shot", "data": "scenes", **zero_shot_scenes(build(tower, options))}


def build(tower: str, options: argparse.Namespace) -> MiniClip:
    """A frozen MiniClip: `shipped` weights, the undistilled `warm_start`, or `random`."""
    torch.manual_seed(0)
    model = MiniClip()
    if tower == "shipped":
        model.load_state_dict(as_float(load_file(options.weights)))
    elif tower == "warm_start":
        model.trunk.load_state_dict(as_float(load_file(options.data / TEACHER_FILE)))
    elif tower != "random":
        raise SystemExit(f"unknown tower {tower!r}: expected shipped, warm_start or random")
    return model.eval().requires_grad_(False)


def as_float(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, floating ones in float32."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


@torch.no_grad()
def calibrate(model: MiniClip, images: Float[Tensor, "n 3 height width"]) -> None:
    """Take the batch norms' statistics from normalised training images, once."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    model.train()
    for batch in torch.split(images, BATCH):
        model.embed(batch)
    model.eval()


def fast(model: MiniClip) -> MiniClip:
    """The same function with its batch norms folded into channels-last convolutions."""
    model.trunk = folded(model.trunk).to(memory_format=torch.channels_last)
    return model.requires_grad_(False)


def digits_frame_prompt(model: MiniClip, is_random: bool, epochs: int) -> dict[str, Any]:
    """Accuracy of a frame prompt with an iteratively recomputed frequency mapping on sklearn's 8 px digits."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 16
    images = functional.interpolate(images, size=DIGIT_SIZE, mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bunch.target)
    train, test = (
        torch.from_numpy(part)
        for part in train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    )
    border = (CANVAS - DIGIT_SIZE) // 2
    mask = functional.pad(torch.zeros(1, DIGIT_SIZE, DIGIT_SIZE), [border] * 4, value=1.0)
    delta = torch.zeros(3, CANVAS, CANVAS, requires_grad=True)

    def prompted(indices: Tensor) -> Tensor:
        canvas = functional.pad(images[indices], [border] * 4) + torch.sigmoid(delta) * mask
        return normalised(canvas).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def source_logits(indices: Tensor) -> Tensor:
        return torch.cat([model(prompted(batch)) for batch in torch.split(indices, BATCH)])

    if is_random:
        calibrate(model, prompted(train).detach())
    fast(model)
    optimizer = torch.optim.Adam([delta], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    mapping = frequency_mapping(source_logits(train), labels[train], 10)
    mapping_only = accuracy(source_logits(test)[:, mapping], labels[test])
    for epoch in range(epochs):
        for batch in torch.split(train[torch.randperm(len(train), generator=generator)], BATCH):
            optimizer.zero_grad()
            loss: Tensor = functional.cross_entropy(model(prompted(batch))[:, mapping], labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        logits = source_logits(train)
        mapping = frequency_mapping(logits, labels[train], 10)
        print(json.dumps({"epoch": epoch, "train_accuracy": accuracy(logits[:, mapping], labels[train])}), flush=True)
    return {"no_prompt": mapping_only, "test_accuracy": accuracy(source_logits(test)[:, mapping], labels[test])}


def frequency_mapping(logits: Tensor, labels: Tensor, n_targets: int) -> Int[Tensor, " n_targets"]:
    """One source class per target class, greedily by how often it is predicted (FLM; recomputed: ILM)."""
    counts = torch.zeros(n_targets, logits.shape[1])
    counts.index_put_((labels, logits.argmax(1)), torch.ones(len(labels)), accumulate=True)
    mapping = torch.zeros(n_targets, dtype=torch.long)
    for _ in range(n_targets):
        target, source = divmod(int(counts.argmax()), logits.shape[1])
        mapping[target] = source
        counts[target], counts[:, source] = -1, -1
    return mapping


@torch.no_grad()
def embeddings(model: MiniClip, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 1280"]:
    """Embeddings of images in [0, 1]."""
    batches = torch.split(normalised(images), BATCH)
    return torch.cat([model.embed(batch.contiguous(memory_format=torch.channels_last)) for batch in batches])


def linear_probe(model: MiniClip, is_random: bool, data: Path, name: str) -> dict[str, Any]:
    """Test accuracy of a ridge classifier on standardised embeddings; its penalty chosen on a fifth of train."""
    archive = data / "images" / f"{name}.zip"
    train_images, train_labels, _ = read_split(archive, "train")
    test_images, test_labels, _ = read_split(archive, "test")
    if len(set(train_labels.tolist())) == 1:  # pneumoniamnist's training part has one class only: halve the test part
        first, second = (part.tolist() for part in halves(test_labels))
        train_images, train_labels = [test_images[index] for index in first], test_labels[first]
        test_images, test_labels = [test_images[index] for index in second], test_labels[second]
    train_pixels = pixels([resized(image) for image in train_images])
    if is_random:
        calibrate(model, normalised(train_pixels[:: max(1, len(train_pixels) // 1000)]))
    fast(model)
    train = embeddings(model, train_pixels).numpy()
    test = embeddings(model, pixels([resized(image) for image in test_images])).numpy()
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    targets = train_labels.numpy()
    fit, held = train_test_split(np.arange(len(targets)), test_size=0.2, stratify=targets, random_state=0)
    validation = {
        alpha: RidgeClassifier(alpha).fit(train[fit], targets[fit]).score(train[held], targets[held])
        for alpha in PROBE_ALPHAS
    }
    best = max(validation, key=lambda alpha: validation[alpha])
    score = RidgeClassifier(best).fit(train, targets).score(test, test_labels.numpy())
    return {"validation_accuracy": round(validation[best], 4), "test_accuracy": round(float(score), 4)}


def halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of two stratified halves."""
    first, second = train_test_split(np.arange(len(labels)), test_size=0.5, stratify=labels, random_state=0)
    return torch.from_numpy(first), torch.from_numpy(second)


@torch.no_grad()
def zero_shot(model: MiniClip, data: Path, name: str) -> dict[str, Any]:
    """Test accuracy of class-name prompts through the text tower."""
    images, labels, classes = read_split(data / "images" / f"{name}.zip", "test")
    scores = text_scores(fast(model), [resized(image) for image in images], [readable(name) for name in classes])
    return {"classes": len(classes), "test_accuracy": accuracy(scores, labels)}


@torch.no_grad()
def zero_shot_scenes(model: MiniClip) -> dict[str, Any]:
    """How often the text tower names colour and shape of single objects in scenes that training did not see."""
    rng = random.Random(SCENE_SEED)
    scenes = [scene for scene in (generate(rng) for _ in range(N_SCENES)) if scene.count == 1]
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    found = text_scores(fast(model), [resized(scene.image) for scene in scenes], names).argmax(1).tolist()
    answers = [names[index].split() for index in found]
    right = [
        (colour == scene.colour, shape == scene.shape) for (colour, shape), scene in zip(answers, scenes, strict=True)
    ]
    return {
        "scenes": len(scenes),
        "colour_and_shape": round(sum(colour and shape for colour, shape in right) / len(right), 4),
        "colour": round(sum(colour for colour, _ in right) / len(right), 4),
        "shape": round(sum(shape for _, shape in right) / len(right), 4),
    }


def text_scores(model: MiniClip, images: list[Image.Image], names: list[str]) -> Float[Tensor, "n names"]:
    """Cosines between images of canvas size and the names, each text the mean over a few templates."""
    projected = functional.normalize(model.project(embeddings(model, pixels(images))), dim=-1)
    prompts = [[template.format(name) for name in names] for template in TEMPLATES]
    texts = torch.stack([functional.normalize(model.encode_text(texts), dim=-1) for texts in prompts]).mean(0)
    return projected @ functional.normalize(texts, dim=-1).T


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest score is the label, to four digits."""
    return round(float((scores.argmax(1) == labels).float().mean()), 4)


if __name__ == "__main__":
    main()

"""Makes the weights of `builtin/mini-clip` from images that may ship, generated scenes and the Apache-2.0 teacher."""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mr_core.backbones.builtin.mini_clip.model import EMBEDDING_DIM, FOLDER, JOINT_DIM, MiniClip
from training.mini_clip.distil import distil
from training.mini_clip.evaluate import TEACHER_FILE, as_float
from training.mini_clip.folding import folded, unfold_into
from training.mini_clip.images import CANVAS
from training.mini_clip.joint import embed_views, train_joint
from training.mini_clip.views import build_views
from training.mini_clip.vocabulary import class_names

TEACHER_SHA256 = "0ad53264870264b1a4e6e6058d926dfab3811ebd9525edeac8880ad582e21314"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="the shared data folder")
    arguments.add_argument("--output", type=Path, default=FOLDER, help="folder for weights.safetensors and config.json")
    arguments.add_argument("--log", type=Path, default=Path(__file__).with_name("log.jsonl"))
    arguments.add_argument("--epochs", type=int, default=7, help="epochs of the image tower")
    arguments.add_argument("--learning-rate", type=float, default=2e-4, help="of the image tower")
    arguments.add_argument("--steps", type=int, default=1000, help="steps of the text tower and projection")
    arguments.add_argument("--crops", type=int, default=3, help="views of each Caltech-101 image")
    arguments.add_argument("--lungs", type=int, default=300, help="pneumoniamnist images")
    arguments.add_argument("--scenes", type=int, default=1200, help="generated scenes")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--seed", type=int, default=0)
    train(arguments.parse_args())


def train(options: argparse.Namespace) -> None:
    """Teacher outputs, image tower, then text tower and projection; writes weights and configuration."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    log = logger(options.log)
    log(
        {"stage": "settings", "torch": torch.__version__}
        | {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    )
    model = MiniClip()
    model.trunk.load_state_dict(teacher_state(options.data))
    model.eval().requires_grad_(False)
    trunk = folded(model.trunk).to(memory_format=torch.channels_last)
    views = build_views(
        options.data, trunk, crops=options.crops, lungs=options.lungs, scenes=options.scenes, seed=options.seed
    )
    log({"stage": "views", **{kind: views.kinds.count(kind) for kind in sorted(set(views.kinds))}})
    distil(trunk, views, epochs=options.epochs, learning_rate=options.learning_rate, seed=options.seed, log=log)
    original, model.trunk = model.trunk, trunk
    embeddings = embed_views(model, views)
    train_joint(model, views, embeddings, steps=options.steps, learning_rate=1e-3, seed=options.seed, log=log)
    unfold_into(original, trunk)
    model.trunk = original
    log({"stage": "saved", **save(model, options.output)})


def teacher_state(data: Path) -> dict[str, torch.Tensor]:
    """The teacher's weights in float32; refuses a file that is not the one the model card names."""
    path = data / TEACHER_FILE
    if hashlib.sha256(path.read_bytes()).hexdigest() != TEACHER_SHA256:
        raise SystemExit(f"{path} is not the teacher of the model card")
    return as_float(load_file(path))


def save(model: MiniClip, folder: Path) -> dict[str, Any]:
    """Write weights in float16 (counters as they are) and the configuration; returns size and checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in state.items()}, weights, metadata={"format": "pt"})
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = {
        "name": "builtin/mini-clip",
        "weights_sha256": digest,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "embedding_dim": EMBEDDING_DIM,
        "joint_dim": JOINT_DIM,
        "logit_scale": model.logit_scale,
        "preprocessing": {"size": CANVAS, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
        "licence": "Apache-2.0",
        "classes": class_names(),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    return {"bytes": weights.stat().st_size, "sha256": digest}


def logger(path: Path) -> Callable[[dict[str, Any]], None]:
    """Prints each entry and keeps it in a fresh file, one JSON object per line."""
    path.write_text("")

    def log(entry: dict[str, Any]) -> None:
        line = json.dumps(entry)
        print(line, flush=True)
        with path.open("a") as kept:
            kept.write(line + "\n")

    return log


if __name__ == "__main__":
    main()

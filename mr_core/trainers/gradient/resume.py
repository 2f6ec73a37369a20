"""Training state to a checkpoint and back: JSON and named arrays, nothing pickled."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from mr_core.observer import Checkpoint, as_checkpoint_array
from mr_core.reprogrammed import Trainable
from mr_core.trainers.trainer import TrainingRun

if TYPE_CHECKING:
    from mr_core.trainers.gradient.trainer import TrainingState

_MODEL, _KEPT, _OPTIMIZER = "model/", "kept/", "optimizer/"


def save_training(
    run: TrainingRun,
    model: Trainable,
    optimizer: torch.optim.Optimizer | None,
    state: TrainingState,
    kept: dict[str, Any],
) -> None:
    """Hand the observer everything from which `restore_training` goes on to the same bytes."""
    arrays = {
        _MODEL + name: as_checkpoint_array(tensor)
        for name, tensor in model.state_dict().items()
        if not name.startswith("backbone.")
    }
    arrays |= {_KEPT + name: as_checkpoint_array(tensor) for name, tensor in kept.items()}
    if optimizer is not None:
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    arrays[f"{_OPTIMIZER}{index}/{name}"] = as_checkpoint_array(torch.as_tensor(value))
    run.observer.save_checkpoint(
        run.name,
        Checkpoint(step=state.epoch, state=asdict(state) | {"kept_score": _finite(state.kept_score)}, arrays=arrays),
    )


def restore_training(
    run: TrainingRun, model: Trainable, optimizer: torch.optim.Optimizer | None
) -> tuple[TrainingState, dict[str, Any]]:
    """The state an earlier attempt saved, loaded into model and optimiser; a fresh one where there is none."""
    from mr_core.trainers.gradient.trainer import TrainingState

    checkpoint = run.observer.load_checkpoint(run.name)
    if checkpoint is None:
        return TrainingState(), {}
    values = dict(checkpoint.state)
    values["kept_score"] = float("-inf") if values["kept_score"] is None else values["kept_score"]
    model.load_state_dict(_under(checkpoint, _MODEL), strict=False)
    if optimizer is not None:
        groups = optimizer.state_dict()["param_groups"]
        per_parameter: dict[int, dict[str, Any]] = {}
        for name, tensor in _under(checkpoint, _OPTIMIZER).items():
            index, key = name.split("/", 1)
            per_parameter.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})
    return TrainingState(**values), _under(checkpoint, _KEPT)


def _under(checkpoint: Checkpoint, prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.tensor(array)
        for name, array in checkpoint.arrays.items()
        if name.startswith(prefix)
    }


def _finite(value: float) -> float | None:
    return value if value > float("-inf") else None

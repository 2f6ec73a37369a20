"""Training state to a checkpoint and back: JSON and named arrays, nothing pickled."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from mr_core.observer import Checkpoint, as_checkpoint_array
from mr_core.reprogrammed import Trainable
from mr_core.trainers.trainer import TrainingRun

if TYPE_CHECKING:
    from mr_core.trainers.epochs import TrainingState
    from mr_core.trainers.rules import StepRule

_MODEL, _KEPT, _RULE, _TALLY = "model/", "kept/", "optimizer/", "tally"


def save_training(
    run: TrainingRun,
    model: Trainable,
    rule: StepRule | None,
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
    if rule is not None:
        arrays |= {_RULE + name: as_checkpoint_array(tensor) for name, tensor in rule.tensors().items()}
    values = asdict(state)
    tally = values.pop("tally")
    if tally is not None:
        arrays[_TALLY] = as_checkpoint_array(tally)
    values["kept_score"] = _finite(state.kept_score)
    run.observer.save_checkpoint(run.name, Checkpoint(step=state.epoch, state=values, arrays=arrays))


def restore_training(run: TrainingRun, model: Trainable, rule: StepRule | None) -> tuple[TrainingState, dict[str, Any]]:
    """The state an earlier attempt saved, loaded into model and rule; a fresh one where there is none."""
    from mr_core.trainers.epochs import TrainingState

    checkpoint = run.observer.load_checkpoint(run.name)
    if checkpoint is None:
        return TrainingState(), {}
    values = dict(checkpoint.state)
    values["kept_score"] = float("-inf") if values["kept_score"] is None else values["kept_score"]
    model.load_state_dict(_under(checkpoint, _MODEL), strict=False)
    if rule is not None:
        rule.restore(_under(checkpoint, _RULE), beat=run.observer.beat)
    tally = torch.tensor(checkpoint.arrays[_TALLY]) if _TALLY in checkpoint.arrays else None
    return TrainingState(**values, tally=tally), _under(checkpoint, _KEPT)


def _under(checkpoint: Checkpoint, prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.tensor(array)
        for name, array in checkpoint.arrays.items()
        if name.startswith(prefix)
    }


def _finite(value: float) -> float | None:
    return value if value > float("-inf") else None

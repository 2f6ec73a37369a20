"""Training in epochs of mini-batches, resumable to the byte; a rule says how a batch moves the adapter."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from mr_core.errors import CallBudgetSpent, TrainingDiverged
from mr_core.evaluation import backbone_outputs, predict_logits
from mr_core.label_mappings.module import Refit
from mr_core.reprogrammed import Trainable
from mr_core.trainers.averaging import AveragedRule
from mr_core.trainers.fields import TrainsInEpochs
from mr_core.trainers.losses import TrainingLoss
from mr_core.trainers.resume import restore_training, save_training
from mr_core.trainers.rules import BatchLoss, StepRule
from mr_core.trainers.trainer import LabelledInputs, Trainer, TrainingHistory, TrainingRun

CHECKPOINT_EVERY_S = 30.0


@dataclass
class TrainingState:
    """Where training is. With the adapter's and the rule's tensors it determines all that follows."""

    epoch: int = 0
    batch: int = 0  # next batch within the epoch
    loss_sum: float = 0.0  # over the images of this epoch so far
    kept_epoch: int = -1
    kept_score: float = -math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    tally: Tensor | None = None  # of what this epoch's passes saw, where the mapping is estimated from it
    stopped_by_budget: bool = False
    calls_spent: bool = False
    stopped_early: bool = False


class EpochTrainer(Trainer, ABC):
    """Mini-batch descent; the order of images in epoch e is a function of (seed, e) alone."""

    def __init__(self, spec: TrainsInEpochs, *, forward_passes: int | None) -> None:
        """`forward_passes` as in the trainer's spec: None where the rule takes the backbone's gradient."""
        self._spec = spec
        self._is_forward_only = forward_passes is not None

    @abstractmethod
    def rule(self, parameters: Mapping[str, nn.Parameter], *, seed: int) -> StepRule:
        """How these parameters are moved, by the names that they have in the adapter's file."""

    def train(self, model: Trainable, run: TrainingRun) -> TrainingHistory:
        rule = self._rule_of(model, run)
        state, kept = restore_training(run, model, rule)
        # Without parameters there is nothing to descend: the fitted mapping is the adapter.
        epochs = self._spec.epochs if rule is not None else 1
        try:
            self._train_epochs(epochs, model, rule, run, state, kept)
        except CallBudgetSpent as error:
            model.eval()
            run.observer.message(f"{error.detail}: training ends in epoch {state.epoch}", level="warning")
            state.stopped_by_budget = state.calls_spent = True
            if not kept:  # not one epoch: what it has come to is all there is
                with _judged(rule):
                    kept, state.kept_epoch = _adapter_state(model), state.epoch
            save_training(run, model, rule, state, kept)
        model.load_state_dict(kept, strict=False)
        return TrainingHistory(
            rows=state.history,
            kept_epoch=state.kept_epoch,
            stopped_by_budget=state.stopped_by_budget and state.epoch < epochs,
            calls_spent=state.calls_spent,
            stopped_early=state.stopped_early and state.epoch < epochs,
        )

    def _train_epochs(
        self,
        epochs: int,
        model: Trainable,
        rule: StepRule | None,
        run: TrainingRun,
        state: TrainingState,
        kept: dict[str, Any],
    ) -> None:
        """Up to the last epoch, or to where it stops earlier. The tensors of the adapter to keep are in `kept`."""
        started = time.monotonic() - state.seconds
        if state.batch == 0 and state.epoch == 0:
            if model.label_mapping is not None and model.label_mapping.refit != "never":
                self._refit_mapping(model, run)
            if rule is not None:
                rule.begin()
                if self._selects(run) and self._start_competes(model):
                    kept.update(_adapter_state(model))
                    state.kept_score = self._validate(model, run, {})
        while state.epoch < epochs and not (state.stopped_by_budget or state.stopped_early):
            if rule is not None:
                self._train_epoch(model, rule, run, state, kept, started)
                model.eval()
            with _judged(rule):
                row = self._end_epoch(model, rule, run, state)
                if row is not None:
                    kept.update(_adapter_state(model))
                    state.kept_epoch = state.epoch - 1
            if state.tally is not None and model.label_mapping is not None:
                model.label_mapping.fit_tally(state.tally)
                state.tally = None
            waited = state.epoch - 1 - state.kept_epoch
            state.stopped_early = self._spec.patience is not None and waited >= self._spec.patience
            state.seconds = time.monotonic() - started
            state.stopped_by_budget = run.max_seconds is not None and state.seconds > run.max_seconds
            save_training(run, model, rule, state, kept)

    def _rule_of(self, model: Trainable, run: TrainingRun) -> StepRule | None:
        parameters = model.adapter_parameters()
        if not parameters:
            return None
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        rule = self.rule({names[id(parameter)]: parameter for parameter in parameters}, seed=run.seed)
        return AveragedRule(rule, parameters, decay=self._spec.averaging) if self._spec.averaging else rule

    def _train_epoch(
        self,
        model: Trainable,
        rule: StepRule,
        run: TrainingRun,
        state: TrainingState,
        kept: dict[str, Any],
        started: float,
    ) -> None:
        if state.batch == 0 and state.epoch > 0 and _refits(model, "each_epoch"):
            self._refit_mapping(model, run)
        data = run.train.at_epoch(state.epoch, run.seed)
        losses = TrainingLoss(self._spec, run.train.labels)
        order = np.random.default_rng([run.seed, state.epoch]).permutation(len(run.train))
        starts = range(0, len(order), self._spec.batch_size)
        saved_at = time.monotonic()
        model.train()  # of what has a mode: the batch norm of a mask network, never the backbone
        while state.batch < len(starts):
            start = starts[state.batch]
            indices = order[start : start + self._spec.batch_size]
            step = state.epoch * len(starts) + state.batch
            batch = BatchLoss(losses, model, data, indices, run.device, self._tallying(model, state))
            loss = rule.move(batch, step=step, steps_per_epoch=len(starts))
            if not math.isfinite(loss):
                raise TrainingDiverged(step, loss)
            state.batch += 1
            state.loss_sum += loss * len(indices)
            seen = state.epoch * len(order) + start + len(indices)
            run.progress(seen, self._spec.epochs * len(order))
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                state.seconds = time.monotonic() - started
                save_training(run, model, rule, state, kept)
                saved_at = time.monotonic()

    def _tallying(self, model: Trainable, state: TrainingState) -> Callable[[Tensor, Tensor], None] | None:
        """What a pass's outputs are handed to, where the mapping is estimated from them."""
        mapping = model.label_mapping
        if mapping is None or mapping.refit != "from_training":
            return None

        def add(outputs: Tensor, labels: Tensor) -> None:
            tally = mapping.tally(outputs, labels)
            state.tally = tally if state.tally is None else state.tally.to(tally) + tally

        return add

    def _refit_mapping(self, model: Trainable, run: TrainingRun) -> None:
        def outputs_of(data: LabelledInputs) -> tuple[Tensor, Tensor]:
            outputs = backbone_outputs(model, data, run.device, observer=run.observer)
            return outputs, data.targets(slice(None), outputs.device)

        assert model.label_mapping is not None
        choosing = run.validation if model.label_mapping.fits_on_validation else None
        validation = outputs_of(choosing) if choosing is not None else None
        model.label_mapping.fit(*outputs_of(run.train), validation=validation)

    def _end_epoch(
        self, model: Trainable, rule: StepRule | None, run: TrainingRun, state: TrainingState
    ) -> dict[str, float] | None:
        """Close the epoch's books; return its row where its adapter is the one to keep so far."""
        steps = math.ceil(len(run.train) / self._spec.batch_size)
        row = {"epoch": float(state.epoch)}
        if rule is not None:
            row["learning_rate"] = rule.learning_rate(step=state.epoch * steps, steps_per_epoch=steps)
        if state.loss_sum > 0:
            row["train_loss"] = state.loss_sum / len(run.train)
        score = self._validate(model, run, row)
        if not math.isfinite(row.get("validation_loss", 0.0)):
            raise TrainingDiverged(state.epoch * steps + state.batch, row["validation_loss"])
        state.history.append(row)
        run.report(row)
        state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
        if self._selects(run) and not score > state.kept_score:
            return None
        state.kept_score = score
        return row

    def _start_competes(self, model: Trainable) -> bool:
        """Whether training may well end below its start: on estimated gradients, and where the start was fitted."""
        mapping = model.label_mapping
        return self._is_forward_only or (
            mapping is not None and mapping.refit == "once" and any(True for _ in mapping.parameters())
        )

    def _selects(self, run: TrainingRun) -> bool:
        return self._spec.selection != "last" and run.validation is not None

    def _validate(self, model: Trainable, run: TrainingRun, row: dict[str, float]) -> float:
        """Add loss and accuracy on the validation part to the row; return what selection goes by, higher is better."""
        if run.validation is None:
            return -math.inf
        logits = predict_logits(model, run.validation, run.device, observer=run.observer)
        targets = run.validation.targets(slice(None), logits.device)
        row["validation_loss"] = float(TrainingLoss(self._spec, run.train.labels)(logits, targets).mean())
        row["validation_accuracy"] = float((logits.argmax(1) == targets).double().mean())
        by_loss = self._spec.selection == "lowest_validation_loss"
        return -row["validation_loss"] if by_loss else row["validation_accuracy"]


def _judged(rule: StepRule | None) -> AbstractContextManager[None]:
    return nullcontext() if rule is None else rule.judged()


def _refits(model: Trainable, when: Refit) -> bool:
    return model.label_mapping is not None and model.label_mapping.refit == when


def _adapter_state(model: Trainable) -> dict[str, Any]:
    """Copies of the adapter's tensors, under the reprogrammed model's names."""
    return {
        name: tensor.detach().clone() for name, tensor in model.state_dict().items() if not name.startswith("backbone.")
    }

"""The trainings of a job: one a seed, and the control on a random backbone."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import RANDOM_PREFIX
from mr_core.baselines import Part, Scores, brief_metrics
from mr_core.errors import SpecError
from mr_core.evaluation import predict_logits
from mr_core.jobs.context import JobContext
from mr_core.jobs.places import Places
from mr_core.jobs.preparation import ready_backbone
from mr_core.jobs.reprogram.parts import Training, read_parts
from mr_core.reprogrammed import FeatureHead, ReprogrammedModel, Trainable
from mr_core.threads import threads_for
from mr_core.trainers.trainer import LabelledFeatures, LabelledInputs, TrainingHistory, TrainingRun

MOST_TRAINED_BYTES = 60 * 2**20  # the service keeps adapters of up to 64 MiB, with all that is told of them
Parts = Mapping[Part, LabelledInputs]


@dataclass(frozen=True)
class Trained:
    """One training: its seed, model and history; accuracy and loss by part where they were asked for."""

    seed: int
    model: ReprogrammedModel
    trainable: Trainable  # the model, or its head where the parts are features
    history: TrainingHistory
    scores: Scores | None = None

    def around(self, backbone: Backbone) -> "Trained":
        """The same adapter around another form of its backbone, such as the one in full precision."""
        if self.model.backbone is backbone:
            return self
        model = ReprogrammedModel(self.model.input_transform, backbone, self.model.label_mapping)
        return replace(self, model=model, trainable=FeatureHead(model) if self.trainable is not self.model else model)


def untrained_model(spec: Training, backbone: Backbone, context: JobContext) -> ReprogrammedModel:
    """The spec's model before training, on the job's device; SpecError where its adapter would be too large to keep."""
    mapping = spec.label_mapping.build(backbone, context.dataset.classes)
    transform = spec.input_transform.build(backbone.preprocessing)
    modules: dict[str, nn.Module] = {"label_mapping": mapping, "input_transform": transform}
    sizes = {part: sum(tensor.nbytes for tensor in module.state_dict().values()) for part, module in modules.items()}
    if sum(sizes.values()) > MOST_TRAINED_BYTES:
        told = " and ".join(f"{n} bytes of {part}" for part, n in sizes.items())
        raise SpecError(
            f"the adapter would hold {told}, at most {MOST_TRAINED_BYTES} are kept",
            param=max(sizes, key=lambda part: sizes[part]),
        )
    return ReprogrammedModel(transform, backbone, mapping).to(context.device)


def train_repeats(spec: Training, context: JobContext, backbone: Backbone, parts: Parts) -> list[Trained]:
    """A training a seed, in order; of a single one the scores are left to the job's evaluation."""
    through = backbone
    if spec.precision != "float32":
        through = ready_backbone(context, spec.backbone, spec.input_transform, precision=spec.precision)
    if spec.repeats == 1:
        return [_train(spec, context, through, parts, seed=spec.seed).around(backbone)]
    trained = []
    for index in range(spec.repeats):
        one = _train(spec, context, through, parts, seed=spec.seed + index, repeat=(index, spec.repeats))
        one = one.around(backbone)
        scores = _scores(one.trainable, parts, context)
        trained.append(replace(one, scores=scores))
    return trained


def best_of(trained: Sequence[Trained]) -> Trained:
    """The highest validation accuracy; the first seed on a tie, or where there are no validation images."""

    def validation_accuracy(one: Trained) -> float:
        validation = one.scores["validation"] if one.scores is not None else None
        return validation["accuracy"] if validation is not None else 0.0

    return max(trained, key=validation_accuracy)


def seed_statistics(trained: Sequence[Trained], chosen: Trained) -> dict[str, Any] | None:
    """Accuracy over the seeds: each, mean and sample standard deviation; None of a single training."""
    if len(trained) == 1:
        return None
    summary: dict[str, Any] = {"n": len(trained), "adapter": chosen.seed}
    for part in ("validation", "test"):
        scores = [one.scores[part] for one in trained if one.scores is not None and one.scores[part] is not None]
        accuracies = [score["accuracy"] for score in scores]
        summary[part] = None
        if accuracies:
            mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
            summary[part] = {"accuracy": accuracies, "mean": mean, "deviation": deviation}
    return summary


def random_control(spec: Training, context: JobContext, places: Places) -> Scores | None:
    """The same adapter trained on the same architecture with random weights, where the spec asks for it."""
    if not spec.evaluation.random_backbone or spec.backbone.startswith(RANDOM_PREFIX):
        return None
    context.observer.message("training the same adapter on a random backbone, as a control")
    backbone = ready_backbone(context, RANDOM_PREFIX + spec.backbone, spec.input_transform)
    parts = read_parts(places, context, backbone, spec.input_transform.build(backbone.preprocessing))
    control = _train(spec, context, backbone, parts, seed=spec.seed, name="random_backbone")
    return _scores(control.trainable, parts, context)


def _train(
    spec: Training,
    context: JobContext,
    backbone: Backbone,
    parts: Parts,
    *,
    seed: int,
    name: str | None = None,
    repeat: tuple[int, int] = (0, 1),
) -> Trained:
    model = untrained_model(spec, backbone, context)
    run = TrainingRun(
        train=parts["train"],
        validation=parts.get("validation"),
        observer=context.observer,
        device=context.device,
        seed=seed,
        name=name or ("training" if repeat[0] == 0 else f"seed_{seed}"),
        max_seconds=spec.budget.max_seconds,
        repeat=repeat,
    )
    on_features = isinstance(parts["train"], LabelledFeatures)
    trainable = FeatureHead(model) if on_features else model
    with threads_for(_head_step(model, len(parts["train"]))) if on_features else nullcontext():
        return Trained(seed, model, trainable, spec.trainer.build().train(trainable, run))


def _head_step(model: ReprogrammedModel, n: int) -> int:
    """Multiply-adds of the head on all training images: an upper bound of a step's."""
    return n * model.label_mapping.matrix().numel()


def _scores(model: Trainable, parts: Parts, context: JobContext) -> Scores:
    scores: Scores = {"validation": None, "test": None}
    for part in ("validation", "test"):
        if part in parts:
            logits = predict_logits(model, parts[part], context.device, observer=context.observer)
            scores[part] = brief_metrics(logits, parts[part].labels)
    return scores

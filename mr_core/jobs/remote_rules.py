"""What a job around a remote backbone may be made of, and what it costs at least. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mr_core.backbones.remote.cost import Cost, Limit
from mr_core.errors import CallBudgetSpent, SpecError

if TYPE_CHECKING:
    from mr_core.jobs.base import Budget, JobSpec
    from mr_core.jobs.reprogram.spec import TrainsAdapter


@dataclass(frozen=True)
class PartSizes:
    """Images of each part; `plain` those of each split to be asked once as they are, for the baselines."""

    train: int
    validation: int
    test: int
    plain: tuple[int, ...] = ()


def limit_of(budget: Budget) -> Limit:
    """What the job may spend on calls."""
    return Limit(calls=budget.max_calls, images=budget.max_images)


def refuse_call_budget(spec: JobSpec) -> None:
    """SpecError where calls are limited that nobody makes."""
    for name in ("max_calls", "max_images"):
        if getattr(spec.budget, name) is not None:
            raise SpecError(f"{name} belongs to a remote backbone", param=f"budget.{name}")


def check_training(spec: TrainsAdapter, budget: Budget, *, canvas_size: int | None) -> None:
    """SpecError naming what does not go with a backbone that only answers, and only for a price."""
    if limit_of(budget) == Limit():
        raise SpecError(
            "a training on a remote backbone needs a limit: set budget.max_images or budget.max_calls",
            param="budget.max_images",
        )
    if spec.label_mapping.reads != "source_logits":
        raise SpecError(
            f"the mapping {spec.label_mapping.kind} reads the {spec.label_mapping.reads}, and a remote backbone gives "
            "source logits alone",
            param="label_mapping.kind",
        )
    if spec.input_transform.kind != "identity" and spec.trainer.forward_passes is None:
        raise SpecError(
            f"the trainer {spec.trainer.kind} needs the backbone's gradient, and a remote one gives answers alone: use "
            "zeroth_order, spsa or cma_es, or a job of the kind prime",
            param="trainer.kind",
        )
    if canvas_size is not None and len(spec.input_transform.choices(canvas_size)) > 1:
        raise SpecError(
            "image_size 'auto' would be paid for: say a size for a remote backbone", param="input_transform.image_size"
        )
    if spec.evaluation.random_backbone:
        raise SpecError("a remote backbone has no random variant", param="evaluation.random_backbone")
    if spec.repeats > 1:
        raise SpecError("a call budget is not divided among trainings: repeats is 1", param="repeats")
    if spec.precision != "float32":
        raise SpecError("the precision of a remote backbone is its own: float32", param="precision")


def evaluation_cost(sizes: PartSizes, batch_size: int) -> Cost:
    """Of judging an adapter on validation and test images, which training must leave."""
    return asking(sizes.validation, batch_size) + asking(sizes.test, batch_size)


def least_cost(spec: TrainsAdapter, sizes: PartSizes, batch_size: int, *, fits: bool = False) -> Cost:
    """Of the baselines, the mapping's first fit where it `fits`, the start's validation, one step, the evaluation."""
    cost = sum((asking(n, batch_size) for n in sizes.plain), Cost())
    if spec.input_transform.kind == "identity":
        return cost
    step = asking(min(getattr(spec.trainer, "batch_size", sizes.train), sizes.train), batch_size)
    cost += asking(sizes.train if fits else 0, batch_size) + step * (spec.trainer.forward_passes or 0)
    selects = getattr(spec.trainer, "selection", "last") != "last"
    return cost + asking(sizes.validation if selects else 0, batch_size) + evaluation_cost(sizes, batch_size)


def require(limit: Limit, cost: Cost, *, what: str) -> None:
    """CallBudgetSpent naming the least budget that would do."""
    if not limit.bears(cost):
        raise CallBudgetSpent(
            f"a budget of {limit} is too small: {what} take at least {cost.calls} calls with {cost.images} images",
            param="budget.max_calls" if limit.bears(Cost(0, cost.images)) else "budget.max_images",
        )


def asking(n_images: int, batch_size: int) -> Cost:
    """Of asking for so many images at once."""
    return Cost(math.ceil(n_images / batch_size), n_images)

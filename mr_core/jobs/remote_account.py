"""What a job spends on its remote backbone."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.remote.cost import Cost
from mr_core.backbones.remote.oracle import Oracle
from mr_core.backbones.remote.source import oracle_of
from mr_core.datasets.pack import Split
from mr_core.jobs.base import JobSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.features import kept_outputs
from mr_core.jobs.places import Places
from mr_core.jobs.remote_rules import (
    PartSizes,
    check_training,
    evaluation_cost,
    least_cost,
    limit_of,
    refuse_call_budget,
    require,
)
from mr_core.jobs.reprogram.spec import ReprogramSpec


@dataclass(frozen=True)
class Account:
    """Of a remote backbone its oracle, and what training must leave for the evaluation; nothing of any other."""

    oracle: Oracle | None = None
    held_back: Cost = field(default_factory=Cost)

    def training(self) -> AbstractContextManager[None]:
        """Training inside spends what the evaluation does not need."""
        return nullcontext() if self.oracle is None else self.oracle.holding_back(self.held_back)

    def statement(self, *, is_spent: bool = False) -> dict[str, Any]:
        """For the result, of a remote backbone alone: what was spent by all attempts, and whether it cut them short."""
        if self.oracle is None:
            return {}
        limit, spent = self.oracle.limit, self.oracle.spent
        told = {
            "calls": spent.calls,
            "images": spent.images,
            "budget": {"max_calls": limit.calls, "max_images": limit.images},
            "budget_spent": is_spent,
        }
        return {"remote": told}


def account_for_training(spec: ReprogramSpec, context: JobContext, backbone: Backbone, places: Places) -> Account:
    """Opened before the first request.

    SpecError where the job cannot be done on answers alone, CallBudgetSpent where its budget would not do.
    """
    oracle = oracle_of(backbone)
    if oracle is None:
        refuse_call_budget(spec)
        return Account()
    check_training(spec, spec.budget, canvas_size=backbone.canvas_size)
    sizes = part_sizes(places, context, backbone)
    batch = oracle.remote.batch_size
    limit = limit_of(spec.budget)
    oracle.begin(context.observer, limit)
    if not oracle.spent.calls:  # a later attempt has paid for some of it, and goes on as far as it can
        fits = spec.label_mapping.build(backbone, context.dataset.classes).refit != "never"
        cost = least_cost(spec, sizes, batch, fits=fits)
        require(limit, cost, what="the baselines, the start, one step of training and the evaluation")
    is_plain = spec.input_transform.kind == "identity"
    return Account(oracle, Cost() if is_plain else evaluation_cost(sizes, batch))


def open_account(spec: JobSpec, context: JobContext, backbone: Backbone) -> Account:
    """The account of a job that asks once and does not train on the answers."""
    oracle = oracle_of(backbone)
    if oracle is None:
        refuse_call_budget(spec)
        return Account()
    oracle.begin(context.observer, limit_of(spec.budget))
    return Account(oracle)


def part_sizes(places: Places, context: JobContext, backbone: Backbone) -> PartSizes:
    """Images by part; of the plain ones those that no earlier job has asked for."""
    sizes = {
        part: context.dataset.n(split) if indices is None else len(indices) for part, (split, indices) in places.items()
    }
    return PartSizes(
        train=sizes["train"],
        validation=sizes.get("validation", 0),
        test=sizes.get("test", 0),
        plain=_unknown(places, context, backbone),
    )


def plain_cost(places: Places, context: JobContext, backbone: Backbone, oracle: Oracle) -> Cost:
    """Of asking for the plain images of the splits that no earlier job has asked for."""
    return sum((oracle.cost(n) for n in _unknown(places, context, backbone)), Cost())


def _unknown(places: Places, context: JobContext, backbone: Backbone) -> tuple[int, ...]:
    splits: Collection[Split] = sorted({split for split, _ in places.values()})
    return tuple(context.dataset.n(split) for split in splits if kept_outputs(split, context, backbone) is None)

"""Trainers: what fits the parameters of an adapter around a frozen backbone."""

from typing import TYPE_CHECKING

from mr_core.registry import discover, tagged_union
from mr_core.trainers.base import TrainerSpec

TRAINERS = discover(__name__, TrainerSpec)
if TYPE_CHECKING:
    AnyTrainerSpec = TrainerSpec
else:
    AnyTrainerSpec = tagged_union(TRAINERS)

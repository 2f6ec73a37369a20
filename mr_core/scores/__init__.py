"""Scores of a source model for a task, computed without training: plain functions, and the registry of their specs.

A function is imported from its module, `from mr_core.scores.leep import leep`; the registry imports neither torch nor
numpy.
"""

from mr_core.registry import discover
from mr_core.scores import specs as specs  # defines what discover collects
from mr_core.scores.base import ScoreSpec

SCORES = discover(__name__, ScoreSpec)

"""Scores of a source model for a task, computed without training."""

from mr_core.scores.alignment import kernel_target_alignment
from mr_core.scores.spectral import effective_rank, label_energies, label_energy

__all__ = ["effective_rank", "kernel_target_alignment", "label_energies", "label_energy"]

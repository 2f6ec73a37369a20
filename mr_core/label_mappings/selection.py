"""Each target class reads source classes of its own: the module of the random, frequent and iterative mappings."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mr_core.errors import SpecError
from mr_core.label_mappings.module import FittingOutputs, LabelMapping, Refit

Tally = Callable[[Tensor, Tensor], Tensor]  # outputs (n, s), labels (n,) -> what to choose by; adds up over samples
Choose = Callable[[Tensor], NDArray[np.int64]]  # a tally -> source indices (c, m)


class SelectionMapping(LabelMapping):
    """Target logits are the mean source logits of the chosen classes, `Z[:, source_of_target].mean`; no parameters.

    No source class serves two target classes. `source_of_target` is `(c,)`, or `(c, m)` with m > 1 sources a class;
    until `fit` it is the arbitrary map in order of index.
    """

    reads = "source_logits"
    source_of_target: Int[Tensor, "..."]

    def __init__(
        self,
        *,
        n_sources: int,
        n_targets: int,
        sources_per_class: int = 1,
        choose: Choose | None = None,
        tally: Tally = lambda _outputs, _labels: torch.empty(0),
        refit: Refit = "never",
    ) -> None:
        super().__init__()
        if n_targets * sources_per_class > n_sources:
            each = "one" if sources_per_class == 1 else str(sources_per_class)
            raise SpecError(
                f"{n_targets} target classes but {n_sources} source classes: the mapping gives each target class "
                f"{each} of its own; use the linear mapping",
                param="label_mapping.kind" if sources_per_class == 1 else "label_mapping.sources_per_class",
            )
        self.refit = refit
        self._n_sources = n_sources
        self._choose = choose
        self._tally = tally
        indices = torch.arange(n_targets * sources_per_class).view(n_targets, sources_per_class)
        self.register_buffer("source_of_target", indices.squeeze(1) if sources_per_class == 1 else indices)

    def forward(self, outputs: Float[Tensor, "n s"]) -> Float[Tensor, "n c"]:
        logits = outputs.index_select(1, self.source_of_target.flatten())
        if self.source_of_target.ndim == 1:
            return logits
        return logits.view(len(outputs), *self.source_of_target.shape).mean(2)

    def fit(
        self, outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        self.fit_tally(self.tally(outputs, labels))

    def tally(self, outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"]) -> Tensor:
        return self._tally(outputs, labels)

    def fit_tally(self, tally: Tensor) -> None:
        if self._choose is not None:
            self.assign(self._choose(tally))

    def assign(self, chosen: Int[NDArray[np.int64], "c m"]) -> None:
        """Take these source classes, each once."""
        self.source_of_target.copy_(torch.from_numpy(np.sort(chosen, axis=1)).view_as(self.source_of_target))

    def matrix(self) -> Float[Tensor, "s c"]:
        chosen = self.source_of_target.view(len(self.source_of_target), -1)
        weights = torch.zeros(self._n_sources, len(chosen), device=chosen.device)
        return weights.scatter_(0, chosen.T, 1 / chosen.shape[1])

"""A dense mapping from source to target classes, counted and not trained."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.label_mappings.module import FittingOutputs, LabelMapping, Refit

Count = Callable[[Tensor], Tensor]  # source logits (n, s) -> how much each sample counts for each source class (n, s)


class BayesianMapping(LabelMapping):
    """`Z omega` with `omega[s, t]` in proportion to `n[s, t] / (n[s] + smoothing)`, columns summing to 1 (BLM, BLM+).

    The published code multiplies logits, not probabilities, and so does this. `n` counts samples of class t for
    source class s; a target class without samples gets the even column, where the published code drops the column
    and shifts all later ones. Until `fit` every column is even. No parameters.
    """

    reads = "source_logits"
    omega: Float[Tensor, "s c"]

    def __init__(
        self,
        *,
        n_sources: int,
        n_targets: int,
        smoothing: float,
        count: Count,
        refit: Refit,
        candidates: Sequence[Count] = (),
    ) -> None:
        """`candidates` are the counts that `fit` chooses from where it is given validation outputs."""
        super().__init__()
        self.refit = refit
        self.fits_on_validation = bool(candidates)
        self._smoothing = smoothing
        self._count = count
        self._candidates = tuple(candidates)
        self.register_buffer("omega", torch.full((n_sources, n_targets), 1 / n_sources))

    def forward(self, outputs: Float[Tensor, "n s"]) -> Float[Tensor, "n c"]:
        return outputs @ self.omega

    def fit(
        self, outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        if validation is None or not self._candidates:
            self.fit_tally(self.tally(outputs, labels))
            return
        held_out, answers = validation
        best = -1
        for count in self._candidates:
            omega = self._estimate(self._counts(count, outputs, labels))
            right = int(((held_out.double() @ omega).argmax(1) == answers).sum())
            if right > best:  # the first of equals
                best = right
                self.omega.copy_(omega)

    def tally(self, outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"]) -> Float[Tensor, "s c"]:
        return self._counts(self._count, outputs, labels)

    def fit_tally(self, tally: Float[Tensor, "s c"]) -> None:
        self.omega.copy_(self._estimate(tally))

    def matrix(self) -> Float[Tensor, "s c"]:
        return self.omega

    def _counts(self, count: Count, outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"]) -> Float[Tensor, "s c"]:
        sums = torch.zeros(self.omega.shape[1], outputs.shape[1], dtype=torch.float64, device=outputs.device)
        return sums.index_add_(0, labels, count(outputs).double()).T

    def _estimate(self, counts: Float[Tensor, "s c"]) -> Float[Tensor, "s c"]:
        """Cai et al., 2024 (arXiv:2410.24018), equations 6 and 7, in float64."""
        omega = counts / (counts.sum(1, keepdim=True) + self._smoothing)
        totals = omega.sum(0)
        return torch.where(totals > 0, omega / totals.clamp(min=torch.finfo(totals.dtype).tiny), 1 / len(counts))


def predicted_classes(outputs: Float[Tensor, "n s"]) -> Float[Tensor, "n s"]:
    """Each sample counts once, for the source class it is put into (BLM)."""
    return torch.zeros_like(outputs).scatter_(1, outputs.argmax(1, keepdim=True), 1.0)


def top_probabilities(outputs: Float[Tensor, "n s"], *, k: int) -> Float[Tensor, "n s"]:
    """Each sample counts by its probabilities of the k most probable source classes (BLM+)."""
    values, indices = outputs.double().softmax(1).topk(min(k, outputs.shape[1]))
    return torch.zeros(outputs.shape, dtype=values.dtype, device=values.device).scatter_(1, indices, values)


def counting_top(k: int) -> Count:
    """`top_probabilities` of a given k."""
    return partial(top_probabilities, k=k)

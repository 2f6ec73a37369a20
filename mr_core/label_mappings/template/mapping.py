"""Frequent mapping onto texts."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.label_mappings.described import Embed
from mr_core.label_mappings.frequent.assignment import choose_by_tally, tally_predictions
from mr_core.label_mappings.frequent.spec import Counting
from mr_core.label_mappings.module import FittingOutputs, LabelMapping
from mr_core.label_mappings.template.spec import TemplateSpec

_ROWS = 256  # images whose scores for all texts are in memory at once, at least


class TemplateMapping(LabelMapping):
    """`s v . t` with the text t that the class was given; no parameters (arXiv:2211.11635, section 4.3).

    Only the chosen texts are kept with the adapter; `chosen` is `template + n_templates * class`. The others are
    embedded when the mapping is first fitted. Memory in `fit`: some times c m numbers in float64 for 256 images, or c
    where that is more.
    """

    reads = "image_text"
    text_embeddings: Float[Tensor, "c d"]
    chosen: Int[Tensor, " c"]

    def __init__(
        self,
        spec: TemplateSpec,
        *,
        n_targets: int,
        n_texts: int,
        width: int,
        embed: Embed,
        texts: Callable[[], Sequence[Sequence[str]]],
    ) -> None:
        super().__init__()
        self._texts = texts
        self.refit = spec.refit
        self._counting = Counting(ties=spec.ties, assignment=spec.assignment)
        self._embed = embed
        self._sources: Float[Tensor, "s d"] | None = None
        self.register_buffer("text_embeddings", torch.zeros(n_targets, width))
        self.register_buffer("chosen", n_texts * torch.arange(n_targets))

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return outputs @ self.text_embeddings.T

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        if self._sources is None:
            self._sources = self._embed().flatten(0, 1)
        sources = self._sources.to(outputs)
        tally = torch.zeros(2, len(sources), len(self.chosen), dtype=torch.float64)
        rows = max(_ROWS, len(self.chosen))
        for part, of_part in zip(torch.split(outputs, rows), torch.split(labels, rows), strict=True):
            tally += tally_predictions(part @ sources.T, of_part, n_targets=len(self.chosen))
        chosen = choose_by_tally(tally, counting=self._counting)
        self.chosen.copy_(torch.from_numpy(chosen[:, 0]))
        self.text_embeddings.copy_(sources[self.chosen.to(sources.device)])

    def chosen_texts(self) -> list[str]:
        texts = [text for of_class in self._texts() for text in of_class]
        return [texts[index] for index in self.chosen.tolist()]

    def matrix(self) -> Float[Tensor, "d c"]:
        return self.text_embeddings.T

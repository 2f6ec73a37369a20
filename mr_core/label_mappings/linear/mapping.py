"""A trained linear layer."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.description import Output
from mr_core.label_mappings.frequent.assignment import choose_frequent
from mr_core.label_mappings.frequent.spec import Counting
from mr_core.label_mappings.module import FittingOutputs, LabelMapping
from mr_core.probe import Labelled, fit_probe

Start = Literal["zero", "probe", "mapped"]


class LinearMapping(LabelMapping):
    """`W outputs + b`.

    Starts at zero, from where the first predictions are uniform; at a linear probe; or `mapped`, at one source class
    for each target class as counts give them out.
    """

    def __init__(self, *, width: int, n_targets: int, reads: Output, start: Start = "zero") -> None:
        super().__init__()
        self.reads = reads
        self.refit = "never" if start == "zero" else "once"
        self.fits_on_validation = start == "probe"
        self._start = start
        self.weight = nn.Parameter(torch.zeros(n_targets, width))
        self.bias = nn.Parameter(torch.zeros(n_targets))

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return functional.linear(outputs, self.weight, self.bias)

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        if self._start == "mapped":
            chosen = choose_frequent(outputs, labels, counting=Counting(), n_targets=len(self.bias))
            self.weight.zero_()
            self.weight[torch.arange(len(chosen)), torch.from_numpy(chosen[:, 0])] = 1
        if self._start != "probe":
            return
        probe = fit_probe(
            _arrays((outputs, labels)),
            n_classes=len(self.bias),
            validation=None if validation is None else _arrays(validation),
        )
        self.weight.copy_(probe.weight)
        self.bias.copy_(probe.bias)

    def matrix(self) -> Float[Tensor, "d c"]:
        return self.weight.detach().T


def _arrays(labelled: FittingOutputs) -> Labelled:
    return labelled[0].cpu().numpy(), labelled[1].cpu().numpy()

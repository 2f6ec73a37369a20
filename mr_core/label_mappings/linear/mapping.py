"""A trained linear layer."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.description import Output
from mr_core.label_mappings.module import FittingOutputs, LabelMapping
from mr_core.probe import Labelled, fit_probe


class LinearMapping(LabelMapping):
    """`W outputs + b`. Starts at zero, from where the first predictions are uniform, or at a linear probe."""

    def __init__(self, *, width: int, n_targets: int, reads: Output, starts_at_probe: bool = False) -> None:
        super().__init__()
        self.reads = reads
        self.refit = "once" if starts_at_probe else "never"
        self.fits_on_validation = starts_at_probe
        self._starts_at_probe = starts_at_probe
        self.weight = nn.Parameter(torch.zeros(n_targets, width))
        self.bias = nn.Parameter(torch.zeros(n_targets))

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return functional.linear(outputs, self.weight, self.bias)

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        if not self._starts_at_probe:
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

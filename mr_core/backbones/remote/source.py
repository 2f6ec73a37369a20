"""A remote model behind the common face: source logits alone, and no gradients."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.backbones.backbone import Backbone, SourceModel
from mr_core.backbones.description import BackboneDescription, Output
from mr_core.backbones.remote.description import remote_of, remote_sha256
from mr_core.backbones.remote.oracle import Oracle
from mr_core.backbones.remote.transport import RemoteAccess
from mr_core.errors import BackboneError, SpecError

_PASS = 64


class RemoteSource(SourceModel):
    """`source_logits` are the logarithms of the API's probabilities: a softmax gives those back."""

    embedding_width = None

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self.oracle = oracle
        self.n_source_classes = len(oracle.classes)

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        if torch.is_grad_enabled() and canvases.requires_grad:
            raise SpecError(
                "a remote backbone answers and gives no gradient: use the trainer zeroth_order, spsa or cma_es",
                param="trainer.kind",
            )
        answers = self.oracle.ask(canvases.detach().cpu().numpy())
        return {name: torch.from_numpy(answers).to(canvases.device) for name in names}


def load_remote(description: BackboneDescription, access: RemoteAccess | None) -> Backbone:
    """The backbone, of which nothing is asked yet; BackboneError without what it may be reached by."""
    if description.random_seed is not None:
        raise BackboneError(f"{description.id}: a remote backbone has no random variant", param="backbone")
    if access is None:
        raise BackboneError(
            f"{description.id} is reached over HTTP: load it with load_backbone(description, access=RemoteAccess(...))",
            param="backbone",
        )
    try:
        remote = remote_of(description)
    except ValueError as error:
        raise BackboneError(f"{description.id} does not say how it is asked", param="backbone") from error
    if description.preprocessing is None or description.classes is None:
        raise BackboneError(f"{description.id} has no preprocessing or no classes", param="backbone")
    oracle = Oracle(remote, description.classes, description.preprocessing, access)
    backbone = Backbone(
        RemoteSource(oracle),
        description=description,
        preprocessing=description.preprocessing,
        source_classes=description.classes,
    )
    # Whole requests a pass, so that images asked together are as few calls as can be.
    backbone.chunk_size = max(remote.batch_size, _PASS // remote.batch_size * remote.batch_size)
    backbone.state_sha256 = remote_sha256(description)
    return backbone


def oracle_of(backbone: Backbone) -> Oracle | None:
    """What a remote backbone asks by; None of any other."""
    return backbone.source.oracle if isinstance(backbone.source, RemoteSource) else None

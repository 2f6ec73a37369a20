"""Ids of backbones that need no registration, read into descriptions. Torch-free."""

from mr_core.backbones.description import MINI_CLIP, RANDOM_PREFIX, TRAINED_PREFIX, BackboneDescription
from mr_core.errors import BackboneError

_FORMS = (
    f"{MINI_CLIP}, timm:<name>, open_clip:<architecture>/<pretrained tag>, torchvision:<name>/<weights>, "
    f"{RANDOM_PREFIX}<any of these>, the id of a registered backbone (bb_...), or {TRAINED_PREFIX}<train_source job>"
)


def describe(backbone_id: str, *, random_seed: int = 0) -> BackboneDescription:
    """The description behind an id; BackboneError naming the accepted forms where it is none of them.

    Whether the library knows the name shows when it is loaded. `random_seed` counts for `random:` ids only.
    """
    if backbone_id.startswith(RANDOM_PREFIX):
        trained = describe(backbone_id.removeprefix(RANDOM_PREFIX))
        return randomised(trained, seed=random_seed)
    if backbone_id == MINI_CLIP:
        return BackboneDescription(id=backbone_id, library="builtin", architecture="mini_clip", pretrained="package")
    library, _, rest = backbone_id.partition(":")
    if library == "timm" and rest:
        return BackboneDescription(id=backbone_id, library="timm", architecture=rest, pretrained="default")
    if library in ("open_clip", "torchvision"):
        architecture, _, pretrained = rest.rpartition("/")
        if architecture and pretrained:
            return BackboneDescription(
                id=backbone_id,
                library="open_clip" if library == "open_clip" else "torchvision",
                architecture=architecture,
                pretrained=pretrained,
            )
    raise BackboneError(f"unknown backbone {backbone_id!r}: expected {_FORMS}", param="backbone")


def randomised(description: BackboneDescription, *, seed: int) -> BackboneDescription:
    """The same architecture with random weights: the control that shows what the trained weights are worth."""
    return description.model_copy(
        update={
            "id": RANDOM_PREFIX + description.id.removeprefix(RANDOM_PREFIX),
            "random_seed": seed,
            "sha256": None,
        }
    )

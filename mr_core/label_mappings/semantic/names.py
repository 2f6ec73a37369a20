"""Source classes chosen by their names."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.loading import load_backbone


def choose_by_name(
    backbone: Backbone, classes: Sequence[str], *, sources_per_class: int, names_by: str
) -> NDArray[np.int64]:
    """The `(c, m)` source classes whose names are nearest to those of the targets.

    The backbone's text tower embeds the names; that of the backbone `names_by` where it has none.
    """
    reader = backbone if "image_text" in backbone.available_outputs else load_backbone(names_by)
    assert backbone.source_classes is not None
    targets, sources = (
        reader.encode_text([name.replace("_", " ") for name in names]).cpu().numpy()
        for names in (classes, backbone.source_classes)
    )
    return in_turn(targets @ sources.T, sources_per_class=sources_per_class)


def in_turn(likeness: Float[np.ndarray, "c s"], *, sources_per_class: int) -> NDArray[np.int64]:
    """`(c, m)`: in m rounds each target class in order takes the most alike source class that is left."""
    left = likeness.astype(np.float64)
    chosen = np.empty((len(left), sources_per_class), np.int64)
    for turn in range(sources_per_class):
        for target, row in enumerate(left):
            chosen[target, turn] = source = int(row.argmax())
            left[:, source] = -np.inf
    return chosen

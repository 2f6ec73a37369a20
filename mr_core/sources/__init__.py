"""Source architectures: networks that a `train_source` job trains, simple enough for the tangent-kernel theory."""

from typing import TYPE_CHECKING

from mr_core.registry import discover, tagged_union
from mr_core.sources.base import SourceSpec

SOURCES = discover(__name__, SourceSpec)
if TYPE_CHECKING:
    AnySourceSpec = SourceSpec
else:
    AnySourceSpec = tagged_union(SOURCES)

"""Label mappings: what turns the frozen backbone's output into scores of the target classes."""

from typing import TYPE_CHECKING

from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.registry import discover, tagged_union

LABEL_MAPPINGS = discover(__name__, LabelMappingSpec)
if TYPE_CHECKING:
    AnyLabelMappingSpec = LabelMappingSpec
else:
    AnyLabelMappingSpec = tagged_union(LABEL_MAPPINGS)

"""Input transforms: what turns a target image into the canvas the frozen backbone sees."""

from typing import TYPE_CHECKING

from mr_core.input_transforms.base import InputTransformSpec
from mr_core.registry import discover, tagged_union

INPUT_TRANSFORMS = discover(__name__, InputTransformSpec)
if TYPE_CHECKING:
    AnyInputTransformSpec = InputTransformSpec
else:
    AnyInputTransformSpec = tagged_union(INPUT_TRANSFORMS)

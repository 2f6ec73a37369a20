"""Input transforms: what turns a target image into the canvas the frozen backbone sees."""

from typing import TYPE_CHECKING

from mr_core.input_transforms.base import InputTransformSpec
from mr_core.registry import discover, tagged_union

INPUT_TRANSFORMS = discover(__name__, InputTransformSpec)
_STEPS = {kind: spec for kind, spec in INPUT_TRANSFORMS.items() if not spec.is_composite}
for _spec in INPUT_TRANSFORMS.values():
    _spec.model_rebuild(_types_namespace={"AnyStepSpec": tagged_union(_STEPS)})
if TYPE_CHECKING:
    AnyInputTransformSpec = InputTransformSpec
else:
    AnyInputTransformSpec = tagged_union(INPUT_TRANSFORMS)

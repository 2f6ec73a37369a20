"""What the backbone gives of a diagnosis' images, kept for the attempts that come after its blocks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter
from torch import Tensor

from mr_core.backbones.description import Output
from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.observer import Checkpoint, Observer, as_checkpoint_array

_NAME = "embedding"
_OUTPUTS: TypeAdapter[Output] = TypeAdapter(Output)


@dataclass(frozen=True)
class Embedding:
    """All outputs of the images alone and in the untrained transform, on the CPU; and that transform, settled."""

    input_transform: InputTransformSpec
    plain: Mapping[Output, Tensor]
    through: Mapping[Output, Tensor]


def load_embedding(observer: Observer) -> Embedding | None:
    """What an earlier attempt kept, or None."""
    kept = observer.load_checkpoint(_NAME)
    if kept is None:
        return None
    tensors: dict[str, dict[Output, Tensor]] = {"plain": {}, "through": {}}
    for name, values in kept.arrays.items():
        part, _, output = name.partition("/")
        tensors[part][_OUTPUTS.validate_python(output)] = torch.from_numpy(values)
    transforms: TypeAdapter[InputTransformSpec] = TypeAdapter(AnyInputTransformSpec)
    return Embedding(transforms.validate_python(kept.state["input_transform"]), **tensors)


def keep_embedding(observer: Observer, embedding: Embedding) -> None:
    """Keep it: a job that waits for its blocks comes here more than once."""
    arrays = {
        f"{part}/{output}": as_checkpoint_array(values)
        for part, outputs in (("plain", embedding.plain), ("through", embedding.through))
        for output, values in outputs.items()
    }
    state = {"input_transform": embedding.input_transform.model_dump(mode="json")}
    observer.save_checkpoint(_NAME, Checkpoint(1, state, arrays))

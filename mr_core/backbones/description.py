"""What identifies a backbone: enough to build it again and to check that it is the same one. Torch-free."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Library = Literal["timm", "open_clip", "torchvision", "builtin", "remote"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Output = Literal["embedding", "source_logits", "image_text"]

MINI_CLIP = "builtin/mini-clip"
RANDOM_PREFIX = "random:"
TRAINED_PREFIX = "trained:"  # then the id of the train_source job
REMOTE_PREFIX = "remote:"  # then the name that the tenant registered it by
ON_FEATURE_MAP = "on_feature_map"  # the built-in architecture of a source on another backbone's frozen map

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(BaseModel):
    """How an image becomes the backbone's input."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    size: int = Field(ge=8, le=2048, description="Side of the canvas, in pixels.")
    mean: tuple[float, float, float] = Field(description="Per channel, of values in [0, 1].")
    std: tuple[float, float, float] = Field(description="Per channel, of values in [0, 1]; above 0.")
    interpolation: Interpolation = "bicubic"

    @field_validator("std")
    @classmethod
    def _is_above_0(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError(f"std is {std}, expected values above 0")
        return std


class BackboneDescription(BaseModel):
    """A frozen source model: library, architecture, weights, preprocessing.

    `sha256` is that of the safetensors file, null where the weights come from a hub or are random;
    the adapter also records the digest of the loaded tensors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: str
    library: Library
    architecture: str = Field(min_length=1, max_length=200)
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments of the architecture; of a remote model how it is asked.",
    )
    pretrained: str | None = Field(None, description="Tag of hub weights; null for a file or random weights.")
    architecture_config: dict[str, Any] | None = Field(
        None, alias="model_config", description="open_clip's model configuration, for an architecture it does not know."
    )
    preprocessing: Preprocessing | None = Field(None, description="Null: what the library states for these weights.")
    classes: tuple[str, ...] | None = Field(None, description="Names of the source classes, in the head's order.")
    sha256: str | None = None
    random_seed: int | None = Field(None, description="Seed of random weights, for a control; null for trained ones.")


class BackboneOutputs(BaseModel):
    """What a backbone gives: number of source labels, embedding width (null without), whether it has a text tower."""

    labels: int | None
    embedding: int | None
    text: bool

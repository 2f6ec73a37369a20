"""How a remote model is asked and what it answers. Torch-free."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mr_core.backbones.description import BackboneDescription, Preprocessing

IMAGES = "{images}"
_OF_PROTOCOL = {
    "json": ("request", "answers", "row", "label", "score"),
    "open_inference": ("input", "output", "layout"),
}
_DECIDE_NOTHING = {"secret", "batch_size", "timeout_s", "requests_per_second", "attempts"}


class RemoteDescription(BaseModel):
    """A model behind a URL. The canvas and the mean and deviation it is sent with are the preprocessing's.

    Pixels are clamped to [0, 1], whatever a prompt added, before mean and deviation are applied.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: str = Field(min_length=1, max_length=2048, description="Where requests are posted, https://host/path.")
    protocol: Literal["open_inference", "json"] = Field(
        description="open_inference: one input and one output tensor as the Open Inference Protocol (v2) has them; "
        "json: `request` with the images put in, answered by rows."
    )
    answer: Literal["probabilities", "logits", "top_k"] = Field(
        description="Of an image: a probability or a logit a class, or only the most probable classes with theirs."
    )
    pixels: Literal["float", "uint8", "png"] = Field(
        "float",
        description="How a value is sent: as a number with six decimals, as 0 to 255, or the image as base64 of a PNG.",
    )
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="Order of the input tensor's axes (open_inference).")
    input: str = Field("input", min_length=1, max_length=200, description="Name of the input tensor (open_inference).")
    output: str | None = Field(
        None, max_length=200, description="Name of the output tensor (open_inference); the first if unset."
    )
    request: dict[str, Any] = Field(
        {"images": IMAGES}, description=f"The body (json); the one text {IMAGES} in it becomes the list of images."
    )
    answers: str = Field(
        "predictions", max_length=200, description="Path to the list of rows, an image each: data.scores; '' is all."
    )
    row: str = Field("", max_length=200, description="Path from a row to its values; '' is the row itself.")
    label: str = Field("label", max_length=200, description="Key of a class, its name or number, in a top_k row.")
    score: str = Field("score", max_length=200, description="Key of its probability there.")
    secret: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="Name of a secret whose header the operator lets this tenant send to this host.",
    )
    revision: str = Field(
        "", max_length=100, description="Your name for the model's version: answers are kept for each apart."
    )
    batch_size: int = Field(16, ge=1, le=256, description="Images a request.")
    timeout_s: float = Field(30, ge=0.1, le=120, description="An answer that takes longer is late.")
    requests_per_second: float | None = Field(None, gt=0, le=1000, description="At most; unlimited if unset.")
    attempts: int = Field(5, ge=1, le=10, description="Of a request that is refused for now or goes wrong.")

    @model_validator(mode="after")
    def _one_place_for_the_images(self) -> "RemoteDescription":
        found = _count_images(self.request)
        if found != 1:
            raise ValueError(f"request holds the text {IMAGES} {found} times, expected once")
        return self

    @model_validator(mode="after")
    def _fields_are_of_the_protocol(self) -> "RemoteDescription":
        for protocol, names in _OF_PROTOCOL.items():
            for name in names:
                if protocol != self.protocol and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} belongs to the protocol {protocol!r}")
        if self.protocol == "open_inference" and self.pixels == "png":
            raise ValueError("pixels 'png' belongs to the protocol 'json'")
        return self


def remote_backbone(
    backbone_id: str, remote: RemoteDescription, *, classes: Sequence[str], preprocessing: Preprocessing
) -> BackboneDescription:
    """The description of a remote backbone; ValueError where its parts do not fit each other."""
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes are {len(classes)} names, expected two or more, each once")
    if remote.pixels != "float" and (any(preprocessing.mean) or set(preprocessing.std) != {1.0}):
        raise ValueError(f"pixels {remote.pixels!r} are sent as they are: expected mean 0 and std 1")
    return BackboneDescription(
        id=backbone_id,
        library="remote",
        architecture=remote.protocol,
        arguments=remote.model_dump(mode="json"),
        preprocessing=preprocessing,
        classes=tuple(classes),
    )


def remote_of(description: BackboneDescription) -> RemoteDescription:
    """How the backbone of this description is asked; ValueError where it does not say."""
    return RemoteDescription.model_validate(description.arguments)


def remote_sha256(description: BackboneDescription) -> str:
    """Stands for the digest of the weights, which nobody here can see: of all that says what is asked and read."""
    decides = remote_of(description).model_dump(mode="json", exclude=_DECIDE_NOTHING)
    preprocessing = description.preprocessing.model_dump(mode="json") if description.preprocessing else None
    fields = {"remote": decides, "preprocessing": preprocessing, "classes": description.classes}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _count_images(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count_images, value.values()))
    if isinstance(value, list):
        return sum(map(_count_images, value))
    return int(value == IMAGES)

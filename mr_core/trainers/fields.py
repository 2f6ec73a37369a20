"""Hyper-parameters that several trainers share. Torch-free."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator


class TrainsInEpochs(BaseModel):
    """Mini-batches of a loss, epoch after epoch, of which one is kept."""

    loss: Literal["cross_entropy", "focal", "squared"] = Field(
        "cross_entropy",
        description="The training loss, averaged over a batch; `squared` is half the squared distance of the logits "
        "from the one-hot target.",
    )
    focal_gamma: float = Field(2.0, ge=0, le=10, description="Exponent of the focal loss; other losses ignore it.")
    class_weights: Literal["uniform", "balanced"] = Field(
        "uniform",
        description="Of a sample's loss; `balanced` is n / (C n_c) of its class c, so that rare classes count as much.",
    )
    averaging: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Exponential average of the parameters over steps, by this decay: it is what is validated and "
        "kept. 0 keeps the parameters themselves.",
    )
    epochs: int = Field(20, ge=1, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(64, ge=1, le=65_536, description="Images a step.")
    selection: Literal["best_validation", "lowest_validation_loss", "last"] = Field(
        "best_validation",
        description="Which epoch's adapter is kept: that of the best validation accuracy, of the lowest validation "
        "loss, or the last; `last` where there is no validation part. The adapter before training competes as epoch "
        "-1 where its mapping was fitted and trains on (a probe's start), and where gradients are estimated.",
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after so many epochs that selection finds no better; never if unset."
    )

    @model_validator(mode="after")
    def _patience_waits_for_something(self) -> Self:
        if self.patience is not None and self.selection == "last":
            raise ValueError("patience waits for a better validation accuracy: selection must be 'best_validation'")
        return self

    @model_validator(mode="after")
    def _gamma_is_of_the_focal_loss(self) -> Self:
        refuse_ignored(self, "focal_gamma", of="loss", value="focal")
        return self


class StepsByOptimizer(TrainsInEpochs):
    """Steps of a standard optimiser along a batch's gradient, measured or estimated."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="Adam, AdamW, or SGD with `momentum`.")
    learning_rate: float = Field(
        0.01, gt=0, description="Step size. A frame prompt on CLIP's cosine head wants SGD at about 40 instead."
    )
    rates: dict[Annotated[str, Field(min_length=1, max_length=100)], Annotated[float, Field(gt=0)]] = Field(
        {},
        max_length=20,
        description="Learning rates of parts, by how their parameters' names in the adapter's file begin, such as "
        "`label_mapping` or `input_transform.network`; the longest beginning counts, what has none takes "
        "`learning_rate`. The schedule lowers all alike.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; the others ignore it.")
    weight_decay: float = Field(
        0.0, ge=0, description="Pulls the adapter's parameters to zero: a term of the gradient, or of AdamW's step."
    )
    schedule: Literal["multi_step", "cosine", "constant"] = Field(
        "multi_step",
        description="multi_step multiplies the learning rate by 0.1 at 50 % and at 72 % of the epochs; cosine lowers "
        "it at every step, to 0 after the last.",
    )
    warmup_steps: int = Field(
        0, ge=0, le=1_000_000, description="Steps over which the learning rate first rises (1000 in arXiv:2203.17274)."
    )
    clip_norm: Annotated[float, Field(gt=0)] | Literal["sqrt_dimension"] | None = Field(
        None,
        description="The norm that a gradient above it is scaled to; `sqrt_dimension` is the root of the number of "
        "parameters, as an estimated gradient asks for.",
    )
    clip_value: float | None = Field(
        None, gt=0, description="The size that each entry of a gradient is cut to; 0.001 in arXiv:2310.08381 for CLIP."
    )

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        refuse_ignored(self, "momentum", of="optimizer", value="sgd")
        return self


def refuse_ignored(spec: BaseModel, name: str, *, of: str, value: str) -> None:
    """ValueError where a field that only counts beside another's value was changed without it.

    A stored spec names every field, so only a value of the caller's own gives itself away.
    """
    if getattr(spec, of) != value and getattr(spec, name) != type(spec).model_fields[name].default:
        raise ValueError(f"{name} belongs to the {of} {value!r}")

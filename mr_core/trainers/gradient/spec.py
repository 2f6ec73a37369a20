"""Back-propagation through the frozen backbone to the adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mr_core.trainers.base import TrainerSpec

if TYPE_CHECKING:
    from mr_core.trainers.gradient.trainer import GradientTrainer


class GradientSpec(TrainerSpec):
    """Gradient descent on the adapter's parameters, through a white-box backbone.

    Settings of Chen et al., 2023 (arXiv:2211.11635) for ImageNet classifiers: Adam, 0.01, drops by 0.1 at
    50 % and 72 % of the epochs. The paper trains 200 epochs at batch 128; the defaults are sized for a first answer.
    """

    kind: Literal["gradient"] = "gradient"
    loss: Literal["cross_entropy"] = Field("cross_entropy", description="The training loss, averaged over a batch.")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="Adam, or SGD with `momentum`.")
    learning_rate: float = Field(
        0.01, gt=0, description="Step size. A frame prompt on CLIP's cosine head wants SGD at about 40 instead."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; Adam ignores it.")
    schedule: Literal["multi_step", "constant"] = Field(
        "multi_step", description="multi_step multiplies the learning rate by 0.1 at 50 % and at 72 % of the epochs."
    )
    epochs: int = Field(20, ge=1, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(64, ge=1, le=65_536, description="Images a step.")
    selection: Literal["best_validation", "last"] = Field(
        "best_validation", description="Which epoch's adapter is kept; `last` where there is no validation part."
    )

    @model_validator(mode="after")
    def _momentum_belongs_to_sgd(self) -> Self:
        # A stored spec names every field, so only a momentum of the caller's own gives itself away.
        if self.optimizer != "sgd" and self.momentum != type(self).model_fields["momentum"].default:
            raise ValueError("momentum belongs to the optimizer 'sgd'")
        return self

    def build(self) -> GradientTrainer:
        from mr_core.trainers.gradient.trainer import GradientTrainer

        return GradientTrainer(self)

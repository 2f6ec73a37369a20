"""Train a source model: the result is a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mr_core.jobs.base import Identifier, JobSpec
from mr_core.registry import MethodSpec
from mr_core.sources import AnySourceSpec
from mr_core.sources.base import Shape
from mr_core.sources.cnn.spec import CnnSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome

DEFAULT_CANVAS = 32


class SourceTrainer(MethodSpec):
    """How the network is trained. The defaults are those of the experiments around arXiv:2506.00620."""

    loss: Literal["cross_entropy", "squared"] = Field(
        "cross_entropy",
        description="`squared` is half the squared distance of the logits from the one-hot label.",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="Adam, AdamW, or SGD with momentum 0.9.")
    learning_rate: float = Field(0.001, gt=0, description="Step size, the same throughout.")
    weight_decay: float = Field(0.001, ge=0, description="A term of the gradient, or of AdamW's step.")
    epochs: int = Field(100, ge=1, le=10_000, description="Passes over the training images at most.")
    batch_size: int = Field(128, ge=1, le=65_536, description="Images a step.")
    selection: Literal["lowest_validation_loss", "best_validation", "last"] = Field(
        "lowest_validation_loss",
        description="Which epoch's weights are kept: by validation loss, by validation accuracy, or the last.",
    )
    patience: int | None = Field(
        5, ge=1, description="Stop after so many epochs that selection finds no better; null: never."
    )

    def as_gradient(self) -> GradientSpec:
        """The same as the adapters' trainer has it."""
        shared = self.model_dump(exclude={"patience"})
        return GradientSpec(
            **shared,
            schedule="constant",
            patience=None if self.selection == "last" else self.patience,
        )


class SourceEvaluation(MethodSpec):
    """How the source model is judged. Selection is on validation data; the test split is touched once."""

    validation_fraction: float = Field(
        0.2, ge=0, le=0.5, description="Share of the training images, stratified by class, kept for selection."
    )


class SourceKernel(MethodSpec):
    """The network's own tangent kernel, in all its parameters, before and after training."""

    samples: int = Field(100, ge=4, le=2000, description="Training images in the kernel, stratified by class.")
    kernel: Literal["full", "trace", "pseudo"] = Field("trace", description="As in `diagnose`.")


class TrainSourceSpec(JobSpec):
    """Train a network from scratch, or a network on the frozen feature map of a backbone; the result is a backbone.

    The sources of the experiments around arXiv:2506.00620. The backbone has the id `trained:<job>`.
    """

    leaves_backbone: ClassVar[bool] = True
    kind: Literal["train_source"] = "train_source"
    backbone: Identifier | None = Field(
        None,
        description="The backbone whose frozen feature map is the network's input (a vision transformer's patch "
        "tokens are folded to a map); null: the network reads pixels.",
    )
    architecture: AnySourceSpec = CnnSpec()
    canvas_size: int | None = Field(
        None,
        ge=8,
        le=512,
        description=f"Side of the images, in pixels; {DEFAULT_CANVAS} if unset, the backbone's on one.",
    )
    augment: bool = Field(
        False, description="Flip training images at random and turn them by up to 15 degrees; from pixels alone."
    )
    trainer: SourceTrainer = SourceTrainer()
    evaluation: SourceEvaluation = SourceEvaluation()
    tangent_kernel: SourceKernel | None = Field(None, description="Also take the network's kernel; null: do not.")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.backbone is not None and self.canvas_size is not None:
            raise ValueError("canvas_size is the backbone's where there is one: leave it out")
        if self.backbone is not None and self.augment:
            raise ValueError("augment changes pixels, and a backbone's feature map is computed once for each image")
        return self

    @model_validator(mode="after")
    def _selection_needs_validation_images(self) -> Self:
        if self.trainer.selection != "last" and self.evaluation.validation_fraction == 0:
            raise ValueError(
                "evaluation.validation_fraction is 0, so there is nothing to select on: set trainer.selection to 'last'"
            )
        return self

    @property
    def pixels(self) -> Shape | None:
        """The shape of the network's input; None where it is a backbone's map, which loading shows."""
        if self.backbone is not None:
            return None
        size = self.canvas_size or DEFAULT_CANVAS
        return 3, size, size

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.train_source.run import train_source

        return train_source(self, context)

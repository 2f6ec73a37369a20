"""Say before training how well a backbone would serve a task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.base import AroundBackbone, Identifier, JobSpec
from mr_core.label_mappings import AnyLabelMappingSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


SHORT_TRAINING_SAMPLES: Final = 200
"""At most; each half is judged by what was trained on the other."""
_STEPS = 70


def short_trainer(n: int) -> GradientSpec:
    """The training on one half, of n samples: 70 steps, which are 10 epochs of 100 samples."""
    batch_size = 16
    epochs = math.ceil(_STEPS / math.ceil(n / batch_size))
    return GradientSpec(epochs=epochs, batch_size=batch_size, selection="last")


class OnSubsample(AroundBackbone):
    """What determines the Jacobian of a reprogrammed model on a subsample."""

    input_transform: AnyInputTransformSpec = PaddingSpec()
    label_mapping: AnyLabelMappingSpec = IterativeSpec()
    samples: int = Field(200, ge=4, le=5000, description="Training images in the kernel, stratified by class.")
    kernel: Literal["full", "trace", "pseudo"] = Field(
        "full", description="full: (samples x classes)^2; trace: mean over outputs; pseudo: sum of logits."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the input transform's gradients; products and sums are float64. bfloat16 runs on CPU, is "
        "refused where the backbone does not keep its gradient in it, and the result tells its measured error.",
    )
    adapter: Identifier | None = Field(
        None, description="Id of an adapter (ad_...) to take the kernel after training; at initialisation if null."
    )


class DiagnoseSpec(OnSubsample, JobSpec):
    """The tangent kernel of the reprogrammed model: spectrum, predicted accuracy and curve, verdict.

    Nothing is trained but, for the prediction, an adapter for some 70 steps on each half of at most 200 of the samples:
    it shows what a prompt reaches that changes the features it reads, as the kernel before training cannot.
    A large kernel is made of blocks, which are sub-jobs, spread over the workers. One too large for a dense eigensolver
    is not formed: its top comes from Lanczos, and the result says so.
    """

    kind: Literal["diagnose"] = "diagnose"
    block_samples: int | None = Field(
        None,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Samples of a block; if null, blocks of about 1,500 rows where the kernel has more than 2,500.",
    )

    short_training: bool = Field(
        True, description="Whether to train for a few steps; without it the prediction is the kernel's alone."
    )

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.diagnose.run import diagnose

        return diagnose(self, context)

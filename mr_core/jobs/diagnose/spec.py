"""Say before training how well a backbone would serve a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.base import AroundBackbone, Identifier, JobSpec
from mr_core.label_mappings import AnyLabelMappingSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


class DiagnoseSpec(AroundBackbone, JobSpec):
    """The tangent kernel of the reprogrammed model: spectrum, predicted accuracy and curve, verdict. No training."""

    kind: Literal["diagnose"] = "diagnose"
    input_transform: AnyInputTransformSpec = PaddingSpec()
    label_mapping: AnyLabelMappingSpec = IterativeSpec()
    samples: int = Field(200, ge=4, le=5000, description="Training images in the kernel, stratified by class.")
    kernel: Literal["full", "trace", "pseudo"] = Field(
        "full", description="full: (samples x classes)^2; trace: mean over outputs; pseudo: sum of logits."
    )
    adapter: Identifier | None = Field(
        None, description="Id of an adapter (ad_...) to take the kernel after training; at initialisation if null."
    )

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.diagnose.run import diagnose

        return diagnose(self, context)

"""What every job that touches a backbone does first: load it, calibrate a random one, make it fast."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.calibration import N_IMAGES, calibrate_batch_norm, has_batch_norm
from mr_core.backbones.remote.source import oracle_of
from mr_core.datasets.dataset import ImageDataset
from mr_core.datasets.pack import Split
from mr_core.datasets.splits import stratified_sample
from mr_core.engine import Precision, accelerate
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.module import InputTransform
from mr_core.jobs.context import JobContext
from mr_core.trainers.trainer import LabelledImages


@dataclass(frozen=True)
class ImageSource:
    """Decodes a job's images to the size a transform takes, into its scratch folder."""

    context: JobContext
    backbone: Backbone

    def read(self, transform: InputTransform, split: Split, indices: NDArray[np.int64] | None = None) -> LabelledImages:
        """The images of a split (or those at `indices`) with their labels."""
        dataset: ImageDataset = self.context.dataset
        images = dataset.decode(
            split,
            size=transform.image_size,
            fit=transform.fit,
            interpolation=self.backbone.preprocessing.interpolation,
            scratch=self.context.scratch,
            indices=indices,
            on_progress=lambda done, total: self.context.observer.progress(done, total, unit="image"),
        )
        labels = dataset.labels(split)
        return LabelledImages(images=images, labels=labels if indices is None else labels[indices])


def ready_backbone(
    context: JobContext,
    backbone_id: str,
    input_transform: InputTransformSpec,
    *,
    precision: Precision = "float32",
    answers_suffice: bool = False,
) -> Backbone:
    """The backbone on the job's device, in its fast form; SpecError where its gradient does not bear the precision.

    A random one with BatchNorm takes its statistics first, from training images in the untrained transform. The
    same images each time: up to 256, stratified, seed 0. A remote one is refused unless answers are all that is needed.
    """
    stock = stock_backbone(context, backbone_id, input_transform, answers_suffice=answers_suffice)
    fast = accelerate(stock.to(context.device), precision=precision)
    fast.chunk_size = max(1, fast.chunk_size // context.batch_divisor)
    return fast


def stock_backbone(
    context: JobContext, backbone_id: str, input_transform: InputTransformSpec, *, answers_suffice: bool = False
) -> Backbone:
    """The same on the CPU and as its library computes it, its statistics taken where it is random."""
    backbone = context.load_backbone(backbone_id)
    if oracle_of(backbone) is not None and not answers_suffice:
        raise SpecError(f"{backbone_id} only answers, and this job needs an embedding and gradients", param="backbone")
    if hasattr(backbone.source, "input_shape"):
        raise SpecError(f"{backbone_id} takes {backbone.source.input_shape} inputs, not images", param="backbone")
    if backbone.description.random_seed is not None and has_batch_norm(backbone):
        transform = input_transform.build(backbone.preprocessing)
        labels = context.dataset.labels("train")
        chosen = stratified_sample(labels, min(N_IMAGES, len(labels)), seed=0)
        sample = ImageSource(context, backbone).read(transform, "train", chosen)
        with torch.no_grad():
            calibrate_batch_norm(backbone, transform(sample.batch(slice(None), torch.device("cpu"))))
    return backbone

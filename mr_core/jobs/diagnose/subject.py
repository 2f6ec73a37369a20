"""What a tangent kernel is of: a model and the images of a subsample. A diagnosis and its blocks make it alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mr_core.adapter import load_adapter
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import RANDOM_PREFIX, Output
from mr_core.baselines import frozen_outputs
from mr_core.datasets.splits import stratified_sample, stratified_split
from mr_core.errors import DatasetError, KernelError, SpecError
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.module import InputTransform
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.kernel_block.spec import KernelBlockSpec
from mr_core.jobs.preparation import ImageSource, ready_backbone
from mr_core.jobs.rank.spec import RankSpec
from mr_core.jobs.scale import settle_image_size
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers.trainer import LabelledImages

N_FOLDS = 5

Subsampled = DiagnoseSpec | KernelBlockSpec


@dataclass(frozen=True)
class Subject:
    """The model, its mapping fitted once `fit_mapping` has been called, and the images as its transform takes them."""

    input_transform: InputTransformSpec  # with nothing left open
    model: ReprogrammedModel
    near: Backbone | None  # the backbone in bfloat16, where the gradients are asked for in that
    chosen: NDArray[np.int64]  # places in the train split
    sample: LabelledImages
    refits: bool  # whether the mapping is counted on the sample

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.sample.labels)

    def images(self, samples: NDArray[np.int64] | slice = slice(None)) -> Float[Tensor, "n 3 k k"]:
        """Those images as the model takes them, on its device; all of them if none are named."""
        return self.sample.batch(samples, self.model.backbone.mean.device)

    def names(self, context: JobContext) -> list[str]:
        """The samples' files in the dataset."""
        names = context.dataset.names("train")
        return [names[place] for place in self.chosen]

    @contextmanager
    def naming_samples(self, context: JobContext) -> Iterator[None]:
        """KernelErrors of a sample tell its file as well."""
        try:
            yield
        except KernelError as error:
            if error.sample is None:
                raise
            name = self.names(context)[error.sample]
            raise KernelError(f"{error.detail} (sample {error.sample} is {name})", param=error.param) from error

    def fit_mapping(self, outputs: Float[Tensor, "n d"]) -> None:
        """Count what the mapping counts, from what it reads of the whole sample."""
        if self.refits:
            self.model.label_mapping.fit(outputs, self.labels.to(outputs.device))


def chosen_samples(spec: Subsampled | RankSpec, context: JobContext) -> NDArray[np.int64]:
    """The places of the subsample in the train split; DatasetError or SpecError where it cannot cover the classes."""
    labels = context.dataset.labels("train")
    n_classes = len(np.unique(labels))
    if n_classes < 2:
        raise DatasetError(f"{n_classes} class has training images: two are needed", param="dataset")
    if spec.samples < n_classes:
        raise SpecError(
            f"{spec.samples} samples cannot cover {n_classes} classes: at least one image of each is needed, "
            f"{5 * n_classes} are better",
            param="samples",
        )
    return stratified_sample(labels, spec.samples, spec.seed)


def load_subject(spec: Subsampled, context: JobContext, *, settled: InputTransformSpec | None = None) -> Subject:
    """The untrained model of the spec, or that of its adapter, on the job's device, and its images.

    `settled` is the transform where it is known which one validation chooses.
    """
    chosen = chosen_samples(spec, context)
    if spec.adapter is None:
        transform, model = _untrained(spec, context, chosen, settled=settled)
    else:
        transform, model = spec.input_transform, _of_adapter(spec, context)
    if not model.adapter_parameters():
        raise SpecError(
            "there is nothing to train, so there is no tangent kernel: neither the input transform nor the label "
            "mapping has parameters",
            param="input_transform.kind",
        )
    near = None
    if spec.precision == "bfloat16":
        near = ready_backbone(context, spec.backbone, transform, precision="bfloat16")
    return Subject(
        input_transform=transform,
        model=model.to(context.device),
        near=near,
        chosen=chosen,
        sample=ImageSource(context, model.backbone).read(model.input_transform, "train", chosen),
        refits=spec.adapter is None and model.label_mapping.refit != "never",
    )


def outputs_through(
    model: ReprogrammedModel, transform: InputTransform, images: LabelledImages, context: JobContext
) -> Mapping[Output, Tensor]:
    """All that the backbone gives of the images in this transform, on the CPU."""
    frozen = frozen_outputs(
        model.backbone,
        transform,
        {"train": images},
        model.backbone.available_outputs,
        device=context.device,
        observer=context.observer,
    )
    return frozen.outputs["train"]


def _untrained(
    spec: Subsampled, context: JobContext, chosen: NDArray[np.int64], *, settled: InputTransformSpec | None
) -> tuple[InputTransformSpec, ReprogrammedModel]:
    backbone = ready_backbone(context, spec.backbone, spec.input_transform)
    if settled is None:
        kept, held_out = stratified_split(context.dataset.labels("train")[chosen], 1 / N_FOLDS, spec.seed)
        settled, _ = settle_image_size(
            spec.input_transform,
            spec.label_mapping,
            context,
            backbone,
            train=chosen[kept],
            validation=chosen[held_out],
        )
    mapping = spec.label_mapping.build(backbone, context.dataset.classes)
    return settled, ReprogrammedModel(settled.build(backbone.preprocessing), backbone, mapping)


def _of_adapter(spec: Subsampled, context: JobContext) -> ReprogrammedModel:
    classes = context.dataset.classes
    if context.adapter is None:
        raise SpecError(f"the job was not given the files of {spec.adapter}", param="adapter")
    if spec.precision != "float32" and spec.backbone.startswith(RANDOM_PREFIX):
        raise SpecError("the kernel of an adapter around a random backbone is taken in float32", param="precision")
    classifier = load_adapter(context.adapter, context.load_backbone(spec.backbone))
    if classifier.classes != classes:
        raise SpecError(
            f"the adapter {spec.adapter} knows {len(classifier.classes)} classes ({_listed(classifier.classes)}), "
            f"the dataset has {len(classes)} ({_listed(classes)})",
            param="adapter",
        )
    return classifier.model


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

"""What costs next to nothing and stands beside a predicted accuracy."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Output
from mr_core.label_mappings.module import LabelMapping
from mr_core.label_mappings.text.spec import TextSpec
from mr_core.ntk.closed_form import linear_head_kernel
from mr_core.ntk.prediction import held_out_logits
from mr_core.ntk.spectrum import eigendecomposition


def cheap_baselines(
    plain_outputs: Mapping[Output, Tensor],
    labels: Int[Tensor, " n"],
    folds: Sequence[Int[Tensor, " _"]],
    mapping: LabelMapping | None,
    *,
    backbone: Backbone,
    classes: Sequence[str],
) -> dict[str, float | None]:
    """Accuracies on the subsample, from the backbone's outputs on plain images, without a prompt.

    `majority`, the largest class's share; `mapping_only`, the mapping with what it counts counted without the held-out
    fold; `linear_probe`, cross-validated; `zero_shot`, by the class names. None where there is no such thing: no
    mapping or one that has to be trained, no text tower.
    """
    mapping_only = None
    if mapping is not None and not list(mapping.parameters()):
        plain = {mapping.reads: plain_outputs[mapping.reads].repeat(1, mapping.views)}
        mapping_only = untrained_accuracy(mapping, plain, labels, folds, n_classes=len(classes))
    zero_shot = None
    if "image_text" in plain_outputs:
        text = TextSpec().build(backbone, classes).to(plain_outputs["image_text"].device)
        with torch.no_grad():
            guesses = text(plain_outputs["image_text"]).argmax(1).cpu()
        zero_shot = float((guesses == labels).double().mean())
    return {
        "majority": float(labels.bincount().max()) / len(labels),
        "mapping_only": mapping_only,
        "linear_probe": linear_probe_accuracy(plain_outputs["embedding"], labels, folds, n_classes=len(classes)),
        "zero_shot": zero_shot,
    }


def untrained_accuracy(
    mapping: LabelMapping,
    outputs: Mapping[Output, Tensor],
    labels: Int[Tensor, " n"],
    folds: Sequence[Int[Tensor, " _"]],
    *,
    n_classes: int,
) -> float:
    """Held-out accuracy of the mapping on these outputs as it is counted; of a linear probe where it has weights."""
    if any(True for _ in mapping.parameters()):
        return linear_probe_accuracy(outputs[mapping.reads], labels, folds, n_classes=n_classes)
    logits = initial_logits_without(mapping, outputs[mapping.reads], labels, refits=mapping.refit != "never")
    return sum(int((logits(fold)[fold].argmax(1) == labels[fold]).sum()) for fold in folds) / len(labels)


def linear_probe_accuracy(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], folds: Sequence[Int[Tensor, " _"]], *, n_classes: int
) -> float:
    """Cross-validated accuracy of ridge regression on the features, bias included, the ridge chosen by its error."""
    features = features.cpu().to(torch.float64)
    features = features - features.mean(0)
    features = features / features.norm(dim=1).mean().clamp(min=torch.finfo(torch.float64).tiny)
    targets = torch.nn.functional.one_hot(labels, n_classes).to(torch.float64)
    eigen = eigendecomposition(linear_head_kernel(features, n_outputs=1, kind="full"))
    held_out = held_out_logits(eigen, targets, folds, lambda _fold: torch.zeros_like(targets))
    return float((held_out.logits.argmax(1) == labels).double().mean())


def initial_logits_without(
    mapping: LabelMapping, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, refits: bool
) -> Callable[[Int[Tensor, " _"]], Float[Tensor, "n c"]]:
    """From a fold to the logits of all samples, the mapping fitted without it where `refits`; on the CPU.

    Without that the mapping would have seen the labels that the prediction is judged by.
    """

    def logits(fold: Int[Tensor, " f"]) -> Float[Tensor, "n c"]:
        fitted = copy.deepcopy(mapping).to(outputs.device)
        if refits:
            keep = torch.ones(len(labels), dtype=torch.bool)
            keep[fold] = False
            fitted.fit(outputs[keep.to(outputs.device)], labels[keep].to(outputs.device))
        with torch.no_grad():
            values: Tensor = fitted(outputs)
        return values.cpu()

    return logits

"""Weights of classes in the training loss."""

import numpy as np
import torch
from torch.nn import functional

from mr_core.trainers.gradient.spec import GradientSpec
from mr_core.trainers.losses import TrainingLoss

LABELS = np.array([0] * 6 + [1] * 3 + [3])


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.from_numpy(LABELS)
    plain = functional.cross_entropy(logits, targets, reduction="none")
    weights = dict(zip([0, 1, 3], compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS), strict=True))
    found = TrainingLoss(GradientSpec(class_weights="balanced"), LABELS)(logits, targets)
    torch.testing.assert_close(found, plain * torch.tensor([weights[int(t)] for t in targets]).float())
    assert torch.equal(TrainingLoss(GradientSpec(), LABELS)(logits, targets), plain)


def test_a_class_that_training_lacks_has_a_finite_weight():
    logits, targets = torch.zeros(1, 4), torch.tensor([2])
    assert torch.isfinite(TrainingLoss(GradientSpec(class_weights="balanced"), LABELS)(logits, targets)).all()

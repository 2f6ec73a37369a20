"""Weights of classes in the training loss."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("gamma", [0.5, 1.5, 2.0])
def test_focal_is_the_formula_and_has_a_gradient_where_nothing_is_missed(gamma):
    logits = torch.tensor([[0.3, -0.2], [4.0, 0.0], [17.0, 0.0], [120.0, 0.0]], requires_grad=True)
    targets = torch.zeros(4, dtype=torch.int64)
    losses = TrainingLoss(GradientSpec(loss="focal", focal_gamma=gamma), LABELS)(logits, targets)
    missed = 1 - logits.detach().double().softmax(1)[:, 0]
    torch.testing.assert_close(losses.double(), missed**gamma * -torch.log1p(-missed), rtol=1e-5, atol=1e-10)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[0].abs().max() > 0.01

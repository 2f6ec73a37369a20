import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from mr_core.probe import DEFAULT_C, fit_probe


def _labelled(n_classes: int, n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, n_classes, n)
    return generator.normal(size=(n, 5)) * [1, 2, 0.1, 30, 1] + 3 * np.eye(5)[labels], labels


def test_folded_weights_give_the_probabilities_of_the_standardised_fit():
    for n_classes in (2, 3):
        features, labels = _labelled(n_classes)
        standardised = (features - features.mean(0)) / features.std(0)
        expected = LogisticRegression(C=DEFAULT_C, max_iter=200).fit(standardised, labels).predict_proba(standardised)
        found = fit_probe((features, labels), n_classes=n_classes).logits(torch.from_numpy(features)).softmax(1)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_class_without_samples_is_never_predicted():
    features, labels = _labelled(3)
    kept = labels != 1
    probe = fit_probe((features[kept], labels[kept]), n_classes=3)
    assert probe.weight.shape == (3, 5)
    assert not (probe.logits(torch.from_numpy(features)).argmax(1) == 1).any()

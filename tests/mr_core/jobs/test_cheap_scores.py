import pytest
import torch

from mr_core.jobs.cheap_scores import NO_SCORES, cheap_scores
from mr_core.scores.leep import leep, softmax


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    means = torch.randn(3, 8, generator=generator)
    embedding = means[labels] + 0.3 * torch.randn(60, 8, generator=generator)
    return {"embedding": embedding, "source_logits": 4 * embedding[:, :5]}, labels


def test_sources_stand_on_one_scale(outputs):
    values, labels = outputs
    scaled = {**values, "embedding": 1000 * values["embedding"]}
    assert cheap_scores(scaled, labels) == pytest.approx(cheap_scores(values, labels), rel=1e-6)


def test_true_labels_score_above_shuffled_ones(outputs):
    values, labels = outputs
    true, shuffled = cheap_scores(values, labels), cheap_scores(values, labels[torch.randperm(60)])
    assert all(true[name] > shuffled[name] for name in NO_SCORES)


def test_leep_is_that_of_the_source_probabilities_and_absent_without_them(outputs):
    values, labels = outputs
    assert cheap_scores(values, labels)["leep"] == pytest.approx(leep(softmax(values["source_logits"]), labels))
    assert cheap_scores({"embedding": values["embedding"]}, labels)["leep"] is None

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mr_core import baselines, probe
from mr_core.baselines import FrozenOutputs
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.label_mappings.frequent.assignment import choose_by_tally, tally_predictions
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.selection import SelectionMapping
from mr_core.label_mappings.text.spec import TextSpec
from mr_core.observer import Observer

CPU = torch.device("cpu")


def _frozen(n_classes: int = 3, *, validation: bool = True) -> FrozenOutputs:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(n_classes, 8)) * 1.5
    parts = ("train", "validation", "test") if validation else ("train", "test")
    labels = {part: generator.integers(0, n_classes, 90) for part in parts}
    outputs = {
        part: {
            "embedding": torch.from_numpy(centres[y] + generator.normal(size=(90, 8))).float(),
            "source_logits": torch.from_numpy(generator.normal(size=(90, 5)) + 4 * np.eye(5)[(y + 2) % 5]).float(),
        }
        for part, y in labels.items()
    }
    return FrozenOutputs(outputs=outputs, labels=labels)


def test_majority_is_the_most_frequent_training_class():
    frozen = _frozen()
    counts = np.bincount(frozen.labels["train"])
    found = baselines.majority(frozen, n_classes=3)
    assert found["test"]["accuracy"] == float((frozen.labels["test"] == counts.argmax()).mean())
    shares = counts / counts.sum()
    expected = -sum(math.log(shares[label]) for label in frozen.labels["test"]) / 90
    assert found["test"]["loss"] == pytest.approx(expected)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_probe_is_logistic_regression_chosen_on_validation(n_classes: int):
    frozen = _frozen(n_classes)
    found = baselines.linear_probe(frozen, n_classes=n_classes, observer=Observer())
    x = {part: outputs["embedding"].double().numpy() for part, outputs in frozen.outputs.items()}
    mean, std = x["train"].mean(0), x["train"].std(0)
    scores = {}
    for c in probe.GRID:
        fitted = LogisticRegression(C=c, max_iter=1000).fit((x["train"] - mean) / std, frozen.labels["train"])
        scores[c] = [fitted.score((x[part] - mean) / std, frozen.labels[part]) for part in ("validation", "test")]
    best = max(scores.values(), key=lambda pair: pair[0])[0]
    assert found["validation"]["accuracy"] == pytest.approx(best)
    assert found["test"]["accuracy"] in [
        pytest.approx(test) for validation, test in scores.values() if validation == best
    ]


def test_without_a_validation_part_nothing_is_selected():
    found = baselines.linear_probe(_frozen(validation=False), n_classes=3, observer=Observer())
    assert found["validation"] is None
    assert found["test"]["accuracy"] > 0.6


def test_mapping_only_counts_on_training_images():
    frozen = _frozen()
    mapping = SelectionMapping(
        n_sources=5,
        n_targets=3,
        choose=partial(choose_by_tally, counting=FrequentSpec()),
        tally=partial(tally_predictions, n_targets=3),
    )
    found = baselines.mapping_only(frozen, mapping)
    assert mapping.source_of_target.tolist() == [2, 3, 4]
    picked = frozen.outputs["test"]["source_logits"][:, [2, 3, 4]].argmax(1).numpy()
    assert found["test"]["accuracy"] == float((picked == frozen.labels["test"]).mean())


def test_frozen_outputs_are_those_of_the_images_alone(tiny_backbone, tiny_images):
    data = tiny_images(n=10, size=12)
    frozen = baselines.frozen_outputs(
        tiny_backbone,
        IdentitySpec().build(tiny_backbone.preprocessing),
        {"train": data},
        tiny_backbone.available_outputs,
        device=CPU,
        observer=Observer(),
    )
    expected = tiny_backbone.outputs(torch.from_numpy(data.images).float() / 255, tiny_backbone.available_outputs)
    for name, values in expected.items():
        torch.testing.assert_close(frozen.outputs["train"][name], values)
    text = TextSpec().build(tiny_backbone, ["a", "b", "c"])
    zero_shot = baselines.zero_shot(
        FrozenOutputs(outputs={"test": frozen.outputs["train"]}, labels={"test": data.labels}), text
    )
    answers = text(expected["image_text"]).argmax(1).numpy()
    assert zero_shot["test"]["accuracy"] == float((answers == data.labels).mean())

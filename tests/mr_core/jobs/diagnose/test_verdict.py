import pytest

from mr_core.jobs.diagnose.verdict import judge

SUMMARY = {"n_samples": 100, "n_classes": 3, "n_parameters": 1000, "kernel": "trace"}


def verdict(accuracy, probe, *, summary=SUMMARY, corrected=None, **flags):
    predicted = {"accuracy": accuracy, "accuracy_interval": [accuracy - 0.1, accuracy + 0.1], "calibration": None}
    predicted |= corrected or {}
    baselines = {"majority": 0.3, "mapping_only": None, "linear_probe": probe, "zero_shot": 0.25}
    return judge(summary, predicted, baselines, **({"is_trained": False} | flags))


@pytest.mark.parametrize(
    ("accuracy", "probe", "label"),
    [
        (0.8, 0.6, "promising"),
        (0.6, 0.8, "linear_probe_suffices"),
        (0.6, 0.6, "linear_probe_suffices"),
        (0.35, 0.8, "linear_probe_suffices"),
        (0.35, 0.38, "unlikely"),
        (0.35, 0.1, "unlikely"),
    ],
)
def test_label_follows_prediction_and_probe(accuracy, probe, label):
    assert verdict(accuracy, probe)["label"] == label


def test_counting_comes_first():
    found = verdict(0.9, 0.1, summary=SUMMARY | {"n_parameters": 299})
    assert found["label"] == "rank_limited"
    assert "300 equations for 299 trainable parameters" in found["reason"]


def test_reason_names_the_numbers_and_the_limits():
    reason = verdict(0.8, 0.6)["reason"]
    assert "80.0 % (90 % interval 70.0 % to 90.0 %)" in reason
    assert "linear probe 60.0 %" in reason
    assert "mapping only" not in reason
    assert "linearised" in reason


def test_reason_says_what_a_calibrated_prediction_was_corrected_by(coefficients):
    corrected = {"calibration": "test", "linearised_accuracy": 0.71, "short_training_accuracy": 0.77}
    reason = verdict(0.8, 0.6, corrected=corrected)["reason"]
    assert "a short training on halves of the sample (77.0 %) and the linearised model (71.0 %)" in reason
    assert "as 60 adapters have it that were trained on 10 datasets" in reason


def test_reason_owns_up_to_a_reduced_kernel_and_to_training_images():
    reason = verdict(0.8, 0.6, is_trained=True, is_approximate=True)["reason"]
    assert "overestimates" in reason
    assert "optimistic" in reason

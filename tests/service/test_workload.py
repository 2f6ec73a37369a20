"""Images passed, worked out by hand."""

import pytest

from mr_core.job_spec import JobSpec
from service.workload import images_of_parts, images_passed, n_parts, n_waits, training_images

SPLITS = {"train": 100, "test": 30}


def _passed(spec, **values):
    stored = JobSpec.parse({"dataset": "ds_1", **spec}).model_dump(mode="json")
    return images_passed(stored, splits=SPLITS, n_classes=5, **values)


@pytest.mark.parametrize(
    ("change", "by_hand"),
    [
        # the images alone, then epochs of 80 forward, backward and for the mapping, 20 to select, then the judgement
        ({}, 130 + 2 * (3 * 80 + 20) + 20 + 30),
        ({"label_mapping": {"kind": "linear"}}, 130 + 2 * (2 * 80 + 20) + 20 + 30),
        ({"evaluation": {"random_backbone": True}}, 130 + 2 * 2 * (3 * 80 + 20) + 20 + 30),
        ({"repeats": 3}, 130 + 3 * 2 * (3 * 80 + 20) + 20 + 30),
        # a mapping of what training saw takes no pass of its own
        ({"label_mapping": {"kind": "bayesian", "refit": "from_training"}}, 130 + 2 * (2 * 80 + 20) + 20 + 30),
        # two draws of two forward passes and the mapping's, and the untrained adapter is selected from too
        ({"trainer": {"kind": "spsa", "draws": 2, "epochs": 2}}, 130 + 20 + 2 * (5 * 80 + 20) + 20 + 30),
    ],
)
def test_reprogram(change, by_hand):
    assert _passed({"kind": "reprogram", "trainer": {"kind": "gradient", "epochs": 2}} | change) == by_hand


def test_epochs_that_were_run_count_where_training_ended_early():
    spec = {"kind": "reprogram", "trainer": {"kind": "gradient", "epochs": 50}}
    assert _passed(spec, epochs=2) == 130 + 2 * 260 + 50


def test_training_alone():
    spec = {"kind": "reprogram", "trainer": {"epochs": 2}, "label_mapping": {"kind": "iterative"}}
    assert training_images(spec, splits=SPLITS) == 2 * 3 * 100


@pytest.mark.parametrize(
    ("kernel", "by_hand"), [("full", 40 * 12 + 40 * (3 * 35 + 1)), ("trace", 40 * 12), ("pseudo", 40 * 4)]
)
def test_diagnose(kernel, by_hand):
    assert _passed({"kind": "diagnose", "samples": 40, "kernel": kernel}) == by_hand
    by_hand_of_100 = 100 * 12 + 100 * (3 * 18 + 1) if kernel == "full" else by_hand * 100 / 40
    assert _passed({"kind": "diagnose", "samples": 4000, "kernel": kernel}) == by_hand_of_100


def test_a_diagnosis_trains_shortly_on_at_most_200_samples():
    """In each epoch both halves pass twice, thrice with a refit, and once to be judged: 10 epochs."""
    large = {"splits": {"train": 230, "test": 30}, "n_classes": 5}
    spec = {"kind": "diagnose", "samples": 230, "input_transform": {"kind": "padding"}, "kernel": "full"}
    without = images_passed({**spec, "adapter": "ad_1"}, **large)
    assert images_passed({**spec, "short_training": False}, **large) == without
    assert images_passed({**spec, "label_mapping": {"kind": "frequent"}}, **large) == without + 200 * 21
    assert images_passed({**spec, "label_mapping": {"kind": "iterative"}}, **large) == without + 200 * 31
    on_features = {**spec, "input_transform": {"kind": "identity"}, "label_mapping": {"kind": "linear"}}
    assert images_passed(on_features, **large) == without


def test_evaluate():
    assert _passed({"kind": "evaluate", "adapter": "ad_1"}) == 30
    assert _passed({"kind": "evaluate", "adapter": "ad_1", "split": "train"}) == 100


def test_a_priming_passes_the_images_over_the_api_and_over_its_encoder():
    spec = {"kind": "prime", "backbone": "remote:api", "trainer": {"kind": "gradient", "epochs": 2}}
    spec |= {"label_mapping": {"kind": "linear"}}
    assert _passed(spec) == 130 + 130 + 2 * (2 * 80 + 20) + 20 + 30


def test_a_kind_that_is_not_counted():
    assert images_passed({"kind": "validate_dataset"}, splits=SPLITS, n_classes=5) is None


def test_a_ranking_passes_its_sample_and_its_parts_pass_theirs():
    grid = {"backbones": ["builtin/mini-clip", "timm:resnet18"], "input_transforms": [{"kind": "identity"}] * 3}
    spec = {"kind": "rank", "samples": 40, "survivors": 4, **grid}
    assert _passed(spec) == 2 * 3 * 40
    stored = JobSpec.parse({"dataset": "ds_1", **spec}).model_dump(mode="json")
    assert n_parts(stored, splits=SPLITS, n_classes=5) == 4
    assert images_of_parts(stored, splits=SPLITS, n_classes=5) == 4 * _passed({"kind": "diagnose", "samples": 40})
    assert n_parts(stored | {"survivors": 50}, splits=SPLITS, n_classes=5) == 6
    without = images_of_parts(stored | {"short_training": False}, splits=SPLITS, n_classes=5)
    assert without == 4 * _passed({"kind": "diagnose", "samples": 40, "short_training": False})


def test_a_large_kernel_is_passed_in_its_blocks():
    """300 samples x 10 outputs are two blocks, each of which passes all samples once to fit its mapping."""
    large = {"splits": {"train": 300, "test": 30}, "n_classes": 10}
    stored = JobSpec.parse({"dataset": "ds_1", "kind": "diagnose", "samples": 300}).model_dump(mode="json")
    assert n_parts(stored, **large) == 2
    assert images_passed(stored, **large) == 2 * 300 + 200 * 31
    assert images_of_parts(stored, **large) == 2 * 300 + 2 * 3000
    block = {"kind": "kernel_block", "start": 160, "stop": 300, "samples": 300, "kernel": "full"}
    assert images_passed(block, **large) == 300 + 2 * 1400
    assert images_of_parts(block, **large) == n_parts(block, **large) == 0
    head = stored | {"input_transform": {"kind": "identity"}}
    assert n_parts(head, **large) == images_of_parts(head, **large) == 0
    grid = JobSpec.parse({"dataset": "ds_1", "kind": "rank", "samples": 300}).model_dump(mode="json")
    assert n_parts(grid, **large) == 1 + 2
    assert images_of_parts(grid, **large) == 2 * 300 + 2 * 300 + 2 * 3000 + 200 * 31


@pytest.mark.parametrize(
    ("change", "by_hand"),
    [
        ({}, 3 * (2 * 80 + 20) + 20 + 30),
        ({"backbone": "builtin/mini-clip"}, 130 + 3 * (2 * 80 + 20) + 20 + 30),
        # before and after training, forward and backward for each of 5 outputs
        ({"tangent_kernel": {"samples": 40}}, 2 * 2 * 5 * 40 + 3 * (2 * 80 + 20) + 20 + 30),
    ],
)
def test_train_source(change, by_hand):
    assert _passed({"kind": "train_source", "trainer": {"epochs": 3}} | change) == by_hand


def test_finalists_of_a_ranking_are_trials():
    spec = {"kind": "rank", "samples": 40, "survivors": 1, "finalists": 3, "trainer": {"kind": "gradient", "epochs": 2}}
    stored = JobSpec.parse({"dataset": "ds_1", **spec}).model_dump(mode="json")
    trial = JobSpec.parse(
        {"dataset": "ds_1", "kind": "trial", "trainer": {"kind": "gradient", "epochs": 2}}
    ).model_dump(mode="json")
    alone = images_passed(trial, splits=SPLITS, n_classes=5)
    assert alone == 100 + 2 * (3 * 80 + 20) + 20
    assert n_parts(stored, splits=SPLITS, n_classes=5) == 2
    without = images_of_parts(stored | {"finalists": 0}, splits=SPLITS, n_classes=5)
    assert images_of_parts(stored, splits=SPLITS, n_classes=5) == without + alone


def test_a_search_passes_what_halving_leaves_of_its_trials():
    """9 trials of 2 epochs, 3 of 6, 1 of 18, then the winner once more; each embeds the images first."""

    def trained(epochs, n_test=0):
        return 100 + n_test + epochs * (3 * 80 + 20) + 20 + n_test

    spec = {"kind": "auto", "samples": 40, "budget": {"max_trials": 9}}
    stored = JobSpec.parse({"dataset": "ds_1", **spec}).model_dump(mode="json")
    given = {"splits": SPLITS, "n_classes": 5}
    assert images_passed(stored, **given) == 3 * 40 + trained(18, 30)
    assert images_passed(stored, epochs=1, **given) == 3 * 40 + trained(1, 30)
    assert n_parts(stored, **given) == 9 + 3 + 1
    tried = 9 * trained(2) + 3 * trained(6) + trained(18)
    assert images_of_parts(stored, **given) == tried
    assert n_waits(stored, 13) == 4
    more = stored | {"seeds": 2, "diagnosed": 3, "input_transforms": [{"kind": "padding"}]}
    assert n_parts(more, **given) == 13 + 2 + 3
    assert images_passed(more, **given) == 40 + trained(18, 30) + 18 * (3 * 80 + 20)
    diagnosed = 3 * _passed({"kind": "diagnose", "samples": 40, "label_mapping": {"kind": "linear"}})
    assert images_of_parts(more, **given) == tried + 2 * (trained(18) + 18 * (3 * 80 + 20)) + diagnosed
    control = stored | {"evaluation": {"validation_fraction": 0.2, "random_backbone": True}}
    assert images_of_parts(control, **given) == tried
    assert images_passed(control, **given) == 3 * 40 + trained(18, 30) + 18 * (3 * 80 + 20)


def test_parts_of_a_ranking_are_waited_for_once():
    assert [n_waits({"kind": "rank"}, n) for n in (0, 1, 8)] == [0, 1, 1]

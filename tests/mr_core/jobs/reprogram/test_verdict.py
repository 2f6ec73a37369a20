from mr_core.jobs.reprogram.verdict import judge


def _scores(validation: float | None, test: float = 0.5) -> dict:
    return {
        "validation": None if validation is None else {"accuracy": validation},
        "test": {"accuracy": test},
    }


def test_uses_the_adapter_where_it_is_best_or_equal():
    verdict = judge(_scores(0.8), {"majority": _scores(0.1), "linear_probe": _scores(0.8), "zero_shot": None})
    assert verdict["use"] == "adapter"
    assert "80.0%" in verdict["reason"]


def test_says_that_a_baseline_is_better():
    verdict = judge(_scores(0.8, 0.99), {"linear_probe": _scores(0.9, 0.1), "mapping_only": _scores(0.2)})
    assert verdict["use"] == "linear_probe"
    assert "The adapter is worse than this baseline" in verdict["reason"]


def test_compares_on_test_only_without_validation_and_says_so():
    verdict = judge(_scores(None, 0.6), {"majority": _scores(None, 0.7)})
    assert verdict["use"] == "majority"
    assert "no validation part" in verdict["reason"]


def test_an_adapter_that_was_not_judged_is_not_recommended_over_what_was():
    unjudged = {"validation": None, "test": None}
    verdict = judge(unjudged, {"majority": _scores(None, 0.3), "linear_probe": _scores(None, 0.7), "zero_shot": None})
    assert verdict["use"] == "linear_probe"
    assert "not judged on any images" in verdict["reason"]
    assert judge(unjudged, {"majority": unjudged})["use"] == "adapter"


def test_a_random_backbone_is_a_control_and_never_the_choice():
    verdict = judge(_scores(0.8), {"random_backbone": _scores(0.9)})
    assert verdict["use"] == "adapter"
    assert "little or nothing" in verdict["reason"]
    assert "little or nothing" not in judge(_scores(0.8), {"random_backbone": _scores(0.3)})["reason"]

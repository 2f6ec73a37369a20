"""What commands print of a result."""

from cli.output import print_result


def test_a_search_shows_its_trials_and_what_was_left_out(capsys):
    trial = {"number": 0, "name": "linear_probe", "validation_accuracy": 0.75, "epochs": 1, "seconds": 2.0}
    failed = {"number": 1, "name": "padding + text", "validation_accuracy": None, "epochs": None, "seconds": 0.0}
    cell = {"input_transform": {"kind": "padding"}, "label_mapping": {"kind": "iterative"}}
    result = {
        "adapter": "ad_1",
        "metrics": {"validation": {"accuracy": 0.75}, "test": None},
        "baselines": {"linear_probe": {"validation": {"accuracy": 0.75}, "test": None}},
        "verdict": {"use": "adapter", "reason": "The probe itself."},
        "timing": {"seconds": 3.0},
        "search": {
            "trials": [
                trial | {"state": "complete", "error": None},
                failed | {"state": "failed", "error": {"code": "training_diverged", "detail": "loss nan"}},
            ],
            "cells": [cell | {"error": {"code": "impossible_spec", "detail": "too large"}}, cell | {"error": None}],
        },
    }
    print_result({"kind": "auto", "id": "job_1", "status": "succeeded", "result": result})
    said = capsys.readouterr().out
    assert "linear_probe    75.0 %      1       2        complete" in said
    assert "failed    loss nan" in said
    assert said.count("left out: padding + iterative: too large") == 1
    assert "adapter: ad_1" in said

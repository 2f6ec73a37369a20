import argparse

import pytest
from pydantic import BaseModel

from cli.spec_flags import _fields, _models, add_spec_flags, spec_from_flags
from mr_core.job_spec import JOB_KINDS, JobSpec


def build(kind, *arguments):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_spec_flags(parser, JOB_KINDS[kind])
    return spec_from_flags(kind, JOB_KINDS[kind], parser.parse_args(["ds_1", *arguments]))


@pytest.mark.parametrize("kind", JOB_KINDS)
def test_nothing_given_posts_nothing_but_kind_and_dataset(kind):
    assert build(kind) == {"kind": kind, "dataset": "ds_1"}


@pytest.mark.parametrize("kind", JOB_KINDS)
def test_every_field_of_every_method_has_a_flag(kind):
    parser = argparse.ArgumentParser()
    add_spec_flags(parser, JOB_KINDS[kind])
    flags = {action.dest for action in parser._actions}
    for name, field in JOB_KINDS[kind].model_fields.items():
        members = _models(field.annotation)
        assert not any(issubclass(member, BaseModel) is False for member in members)
        expected = [f"spec:{name}.{inner}" for inner, _ in _fields(members)] if members else [f"spec:{name}"]
        assert name in {"kind", "dataset"} or set(expected) <= flags


def test_flags_become_the_spec_that_they_say():
    document = build(
        "reprogram", "--input-transform.image-size", "48", "--label-mapping", "linear", "--label-mapping.on",
        "source_logits", "--trainer.epochs", "3", "--trainer.learning-rate", "1e-2", "--evaluation.random-backbone",
        "--metadata", "team=a", "--metadata", "note=b=c", "--backbone", "timm:resnet18", "--seed", "7",
    )  # fmt: skip
    assert document == {
        "kind": "reprogram",
        "dataset": "ds_1",
        "backbone": "timm:resnet18",
        "input_transform": {"kind": "padding", "image_size": 48},
        "label_mapping": {"kind": "linear", "on": "source_logits"},
        "trainer": {"kind": "gradient", "epochs": 3, "learning_rate": 0.01},
        "evaluation": {"random_backbone": True},
        "metadata": {"team": "a", "note": "b=c"},
        "seed": 7,
    }
    assert JobSpec.parse(document).kind == "reprogram"


def test_lists_take_several_values():
    document = build(
        "rank", "--backbones", "builtin/mini-clip", "1", "--input-transforms", "identity",
        '{"kind": "padding", "image_size": 48}', "--label-mappings", "linear", "--survivors", "2",
    )  # fmt: skip
    assert document == {
        "kind": "rank",
        "dataset": "ds_1",
        "backbones": ["builtin/mini-clip", "1"],
        "input_transforms": [{"kind": "identity"}, {"kind": "padding", "image_size": 48}],
        "label_mappings": [{"kind": "linear"}],
        "survivors": 2,
    }
    assert JobSpec.parse(document).kind == "rank"


def test_a_search_takes_lists_and_a_budget():
    document = build(
        "auto", "--input-transforms", "identity", '{"kind": "padding", "image_size": 48}', "--trainers", "gradient",
        "--search", "learning_rate", "--budget.max-seconds", "60", "--budget.max-trials", "9", "--retrain",
    )  # fmt: skip
    assert document == {
        "kind": "auto",
        "dataset": "ds_1",
        "input_transforms": [{"kind": "identity"}, {"kind": "padding", "image_size": 48}],
        "trainers": [{"kind": "gradient"}],
        "search": ["learning_rate"],
        "budget": {"max_seconds": 60, "max_trials": 9},
        "retrain": True,
    }
    assert JobSpec.parse(document).kind == "auto"


def test_text_stays_text():
    document = build("reprogram", "--label-mapping", "text", "--label-mapping.template", "123 {}", "--backbone", "1")
    assert document["label_mapping"] == {"kind": "text", "template": "123 {}"}
    assert document["backbone"] == "1"


def test_an_unknown_choice_is_refused_before_anything_is_sent():
    with pytest.raises(argparse.ArgumentError, match="magic"):
        build("reprogram", "--label-mapping", "magic")


def test_metadata_without_a_value_is_a_usage_error(capsys):
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        build("reprogram", "--metadata", "team")

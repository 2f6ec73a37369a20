"""A search end to end, on coloured squares and a random source model of two convolutions."""

import json

import pytest
from pydantic import ValidationError

from mr_core.adapter import load_adapter
from mr_core.adapter_file import CONFIG, WEIGHTS
from mr_core.datasets.dataset import open_dataset
from mr_core.errors import SpecError
from mr_core.job_spec import JobSpec
from mr_core.jobs.auto import search as search_module
from mr_core.jobs.context import JobContext
from mr_core.jobs.rank.spec import RankSpec
from mr_core.observer import Observer
from mr_core.studies import Studies
from mr_core.sub_jobs import SubJobEnd, SubJobs
from tests.mr_core.jobs.diagnose.test_run import archive
from tests.mr_core.jobs.rank.test_run import Keeping

SMALL = {
    "input_transforms": [{"kind": "identity"}, {"kind": "padding", "image_size": 8}],
    "label_mappings": [{"kind": "iterative"}, {"kind": "linear", "start": "probe"}],
    "budget": {"max_trials": 6},
    "min_epochs": 1,
    "max_epochs": 3,
    "samples": 24,
    "evaluation": {"validation_fraction": 0.5},
}


@pytest.fixture
def context_of(tmp_path, tiny_backbone, monkeypatch):
    monkeypatch.setattr("mr_core.jobs.reprogram.run.reprogram_artifacts", lambda **_: [])
    dataset = open_dataset(archive(tmp_path / "squares.zip"), scratch=tmp_path)

    def context(**fields):
        given = {"dataset": dataset, "load_backbone": lambda _: tiny_backbone, "scratch": tmp_path}
        return JobContext(**given | {"observer": Observer()} | fields)

    return context


@pytest.fixture
def run(context_of):
    def auto(*, observer=None, sub_jobs=None, studies=None, rankings=None, **fields):
        context = context_of(
            observer=observer or Observer(), sub_jobs=sub_jobs or SubJobs(), studies=studies or Studies(),
            **({} if rankings is None else {"load_ranking": rankings.__getitem__}),
        )  # fmt: skip
        return JobSpec.parse({"kind": "auto", "dataset": "squares", **SMALL, **fields}).run(context)

    return auto


class Answered(SubJobs):
    """Answers that need no training: by the part's name, `reached` of 20 validation images right."""

    def __init__(self, reached=lambda name, spec: 10, seconds=1.0):
        self.specs, self.rounds, self._reached, self._seconds = {}, [], reached, seconds

    def run(self, specs, context):
        self.rounds.append(list(specs))
        return {name: self._end(name, spec) for name, spec in specs.items()}

    def _end(self, name, spec):
        assert self.specs.setdefault(name, spec) == spec
        n_right = self._reached(name, spec)
        if isinstance(n_right, SubJobEnd):
            return n_right
        digits = f"{(2**n_right - 1) << (24 - n_right):06x}"
        answer = {"accuracy": n_right / 20, "loss": 1.0, "n": 20, "hits": digits}
        seeds = [{"seed": n, **answer} for n in range(spec.repeats)] if spec.repeats > 1 else None
        training = {"epochs": spec.trainer.epochs, "kept_epoch": 0}
        timing = {"seconds": self._seconds}
        return SubJobEnd("succeeded", {"validation": answer, "training": training, "seeds": seeds, "timing": timing})


def test_winner_is_an_adapter_with_everything_that_was_tried(run, tiny_backbone, tmp_path):
    outcome = run()
    result, found = outcome.result, outcome.result["search"]
    json.dumps(result, allow_nan=False)
    assert [row["number"] for row in found["trials"]] == list(range(6))
    assert [row["name"] for row in found["trials"][:2]] == ["linear_probe", "zero_shot"]
    assert {row["state"] for row in found["trials"]} <= {"complete", "halved", "repeats"}
    assert found["ended_by"] == "trials"
    winner = found["trials"][found["winner"]["trial"]]
    assert result["metrics"]["validation"]["accuracy"] == winner["validation_accuracy"]
    assert result["metrics"]["validation"]["accuracy"] >= result["baselines"]["linear_probe"]["validation"]["accuracy"]
    assert found["trials"][0]["validation_accuracy"] == result["baselines"]["linear_probe"]["validation"]["accuracy"]
    assert found["trials"][1]["validation_accuracy"] == result["baselines"]["zero_shot"]["validation"]["accuracy"]
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_bytes(outcome.adapter.config)
    (folder / WEIGHTS).write_bytes(outcome.adapter.weights)
    assert load_adapter(folder, backbone=tiny_backbone)
    assert json.loads(outcome.adapter.config)["spec"]["kind"] == "reprogram"


class AsInTheService(Answered):
    """Ends the attempt at each new round, as the worker's does; the answers are there the next time."""

    def __init__(self, *args, **fields):
        super().__init__(*args, **fields)
        self.ended = {}

    def run(self, specs, context):
        if all(name in self.ended for name in specs):
            assert all(self.specs[name] == spec for name, spec in specs.items())
            return {name: self.ended[name] for name in specs}
        self.ended |= super().run(specs, context)
        raise InterruptedError


class OneStudy(Studies):
    """Kept over attempts, as the service's is."""

    def __init__(self):
        self.study = None

    def open(self):
        from contextlib import nullcontext

        self.study = self.study or self._study(None, None)
        return nullcontext(self.study)


def by_place(name, spec):
    """Deterministic, different for every trial, and better with more epochs."""
    number, epochs = name.split("-")[1:]
    return 7 + (7 * int(number)) % 5 + (0 if epochs == "seeds" else int(epochs))


@pytest.mark.parametrize("keeps", [True, False])
def test_is_the_same_however_often_the_job_waits(run, keeps):
    fields = {"budget": {"max_trials": 9}, "parallel": 3, "seeds": 2}
    undisturbed = run(sub_jobs=Answered(by_place), **fields).result["search"]
    parts, observer, studies, n_attempts = AsInTheService(by_place), Keeping(), OneStudy(), 0
    while True:
        n_attempts += 1
        try:
            outcome = run(sub_jobs=parts, observer=observer, studies=studies if keeps else Studies(), **fields)
            break
        except InterruptedError:
            assert n_attempts < 30
    assert outcome.result["search"] == undisturbed
    assert n_attempts == len(parts.rounds) + 1 > 4
    names = [name for names in parts.rounds for name in names]
    assert len(names) == len(set(names))
    if keeps:
        assert [trial.number for trial in studies.study.get_trials()] == list(range(9))
        assert all(trial.state.is_finished() for trial in studies.study.get_trials())


def test_an_attempt_that_died_between_proposals_loses_none(run, monkeypatch):
    fields = {"budget": {"max_trials": 6}, "parallel": 6}
    undisturbed = run(sub_jobs=Answered(by_place), **fields).result["search"]
    studies, asked = OneStudy(), []
    whole = search_module.Proposals.candidate

    def dies_once(self, number):
        candidate = whole(self, number)
        asked.append(number)
        if asked == [0, 1, 2, 3, 4]:
            raise InterruptedError
        return candidate

    monkeypatch.setattr(search_module.Proposals, "candidate", dies_once)
    with pytest.raises(InterruptedError):
        run(sub_jobs=Answered(by_place), studies=studies, **fields)
    assert run(sub_jobs=Answered(by_place), studies=studies, **fields).result["search"] == undisturbed
    assert len(studies.study.get_trials()) == 6


def test_survivors_are_trained_anew_for_more_epochs(run):
    parts = Answered(by_place)
    found = run(sub_jobs=parts, min_epochs=1, max_epochs=9, budget={"max_trials": 12}).result["search"]
    for row in found["trials"]:
        epochs = [rung["epochs"] for rung in row["rungs"]]
        assert epochs == ([1] if row["trainer"] is None else [1, 3, 9][: len(epochs)])
        assert row["state"] == ("complete" if row["trainer"] is None or len(epochs) == 3 else "halved")
    n_of = [sum(len(row["rungs"]) > n for row in found["trials"] if row["trainer"]) for n in range(3)]
    assert n_of[0] > n_of[1] >= n_of[2] >= 1
    for name, spec in parts.specs.items():
        assert spec.trainer.epochs == int(name.split("-")[2])
        assert spec.seed == 0


def test_search_begins_with_the_cells_that_screening_likes_best(run):
    found = run(sub_jobs=Answered(by_place), budget={"max_trials": 8}).result["search"]
    first = next(row for row in found["trials"] if row["trainer"] is not None)
    trainable = [cell for cell in found["cells"] if cell["label_mapping"]["kind"] == "linear" or
                 cell["input_transform"]["kind"] == "padding"]  # fmt: skip
    best = max(cell["untrained_accuracy"] for cell in trainable)
    likes = [cell for cell in trainable if cell["untrained_accuracy"] == best]
    assert (first["input_transform"], first["label_mapping"]) in [
        (cell["input_transform"], cell["label_mapping"]) for cell in likes
    ]
    assert first["trainer"]["learning_rate"] == 0.01


def test_search_begins_with_the_cells_that_are_predicted_best(run):
    class Diagnoses(Answered):
        def run(self, specs, context):
            diagnoses = {name: 0.5 + 0.1 * n for n, name in enumerate(specs) if name.startswith("diagnosis")}
            if not diagnoses:
                return super().run(specs, context)
            return {
                name: SubJobEnd("succeeded", {"predicted": {"accuracy": share}}) for name, share in diagnoses.items()
            }

    found = run(sub_jobs=Diagnoses(by_place), diagnosed=2).result["search"]
    predicted = {cell["predicted_accuracy"]: cell for cell in found["cells"] if cell["predicted_accuracy"]}
    assert sorted(predicted) == [0.5, 0.6]
    first = next(row for row in found["trials"] if row["trainer"] is not None)
    assert all(first[family] == predicted[0.6][family] for family in ("input_transform", "label_mapping"))


def ranked(kind, accuracy, *, backbone="builtin/mini-clip", trained=None):
    specs = RankSpec(dataset="squares", **{family: SMALL[family] for family in ("input_transforms", "label_mappings")})
    transform = next(transform for transform in specs.input_transforms if transform.kind == "padding")
    mapping = next(mapping for mapping in specs.label_mappings if mapping.kind == kind)
    return {
        "backbone": backbone,
        "input_transform": transform.model_dump(mode="json"),
        "label_mapping": mapping.model_dump(mode="json"),
        "predicted": None if accuracy is None else {"accuracy": accuracy},
        "trained": trained and {"validation_accuracy": trained},
    }


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([ranked("linear", 0.5), ranked("iterative", 0.6)], "iterative"),
        ([ranked("linear", 0.5, trained=0.7), ranked("iterative", 0.6)], "linear"),
        ([ranked("linear", 0.5), ranked("iterative", None), ranked("iterative", 0.6, backbone="other")], "linear"),
    ],
)
def test_search_begins_in_the_order_of_a_ranking(run, rows, first):
    rankings, observer = {"job_1": {"cells": rows}}, Keeping()
    outcome = run(sub_jobs=Answered(by_place), rankings=rankings, ranking="job_1", observer=observer)
    found = outcome.result["search"]
    row = next(row for row in found["trials"] if row["trainer"] is not None)
    assert (row["input_transform"]["kind"], row["label_mapping"]["kind"]) == ("padding", first)
    again = run(sub_jobs=Answered(by_place), rankings={}, ranking="job_1", observer=observer)
    assert again.result["search"] == found  # the ranking may be gone by the next attempt


def test_a_ranking_that_is_not_there_is_refused(run):
    with pytest.raises(SpecError, match="there is no ranking job_1"):
        run(sub_jobs=Answered(by_place), ranking="job_1")


def test_settings_are_searched_around_what_methods_say(run):
    parts = Answered(by_place)
    transforms = [{"kind": "padding"}, {"kind": "padding", "image_size": 5}]
    trainers = [{"kind": "gradient", "learning_rate": 2.0, "optimizer": "sgd"}]
    run(sub_jobs=parts, input_transforms=transforms, trainers=trainers, budget={"max_trials": 30})
    trained = [spec for spec in parts.specs.values() if spec.input_transform.kind == "padding"]
    rates = {spec.trainer.learning_rate for spec in trained}
    assert all(0.2 <= rate <= 20 for rate in rates)
    assert max(rates) / min(rates) > 5
    sizes = {spec.input_transform.image_size for spec in trained}
    assert sizes <= set(range(3, 11))
    assert len(sizes) > 3
    fixed = Answered(by_place)
    run(sub_jobs=fixed, input_transforms=transforms, trainers=trainers, search=[])
    trained = [spec for spec in fixed.specs.values() if spec.input_transform.kind == "padding"]
    assert {spec.trainer.learning_rate for spec in trained} == {2.0}
    assert {spec.input_transform.image_size for spec in trained} <= {None, 5}


def test_what_was_proposed_before_is_not_trained_again(run):
    parts = Answered(by_place)
    one = {"input_transforms": [{"kind": "padding"}], "label_mappings": [{"kind": "iterative"}], "search": []}
    found = run(sub_jobs=parts, **one).result["search"]
    assert [row["state"] for row in found["trials"]][2:] == ["complete", *["repeats"] * 3]
    assert {int(name.split("-")[1]) for name in parts.specs} == {0, 1, 2}


def test_the_probe_itself_is_returned_where_nothing_leads_it_clearly(run):
    def reached(name, spec):
        return {"0": 10, "1": 9}.get(name.split("-")[1], 11)

    outcome = run(sub_jobs=Answered(reached))
    found, result = outcome.result["search"], outcome.result
    assert found["winner"]["name"] == "linear_probe"
    assert "the adapter is the linear probe itself" in result["verdict"]["reason"]
    (against,) = [row for row in found["comparisons"] if row["second"] == 0]
    assert against["difference"] == pytest.approx(0.05)
    assert 0.5 < against["probability_better"] < 0.9
    assert not against["beyond_noise"]
    probe = result["baselines"]["linear_probe"]
    for part in ("validation", "test"):
        assert result["metrics"][part]["accuracy"] == probe[part]["accuracy"]
        assert result["metrics"][part]["loss"] == pytest.approx(probe[part]["loss"], rel=1e-4)
    daring = run(sub_jobs=Answered(reached), confidence=0.5).result["search"]
    assert daring["winner"]["name"] != "linear_probe"


def test_zero_shot_may_win(run):
    def reached(name, spec):
        return {"0": 10, "1": 19}.get(name.split("-")[1], 11)

    outcome = run(sub_jobs=Answered(reached))
    result = outcome.result
    assert result["search"]["winner"]["label_mapping"]["kind"] == "text"
    assert "zero-shot, which the adapter is" in result["verdict"]["reason"]
    assert "beyond noise" in result["verdict"]["reason"]
    assert result["metrics"]["test"]["accuracy"] == result["baselines"]["zero_shot"]["test"]["accuracy"]


def test_several_seeds_of_the_two_best(run):
    class Seeds(Answered):
        def _end(self, name, spec):
            end = super()._end(name, spec)
            if name.endswith("seeds"):
                for n, seed in enumerate(end.result["seeds"]):
                    seed["accuracy"] += 0.05 * n
            return end

    def reached(name, spec):
        return by_place(name, spec) + 5 * (spec.input_transform.kind == "padding")

    parts = Seeds(reached)
    result = run(sub_jobs=parts, seeds=3, confidence=0.5).result
    seeded = [name for name in parts.specs if name.endswith("seeds")]
    assert 1 <= len(seeded) <= 2
    assert all(parts.specs[name].repeats == 3 for name in seeded)
    trained = [row for row in result["search"]["finalists"] if len(row["accuracies"]) == 3]
    assert len(trained) == len(seeded)
    for row in trained:
        assert row["deviation"] == pytest.approx(0.05)
        assert row["mean"] == pytest.approx(row["accuracies"][1])
    winner = result["search"]["winner"]
    assert winner["trial"] == max(result["search"]["finalists"], key=lambda row: row["mean"])["trial"]
    assert result["seeds"]["n"] == 3


def test_a_trial_that_fails_from_a_further_seed_gives_way_to_the_next(run):
    failed = SubJobEnd("failed", error={"code": "diverged", "detail": "loss nan", "param": None}, seconds=7.0)

    def search(fails):
        def reached(name, spec):
            return failed if name in fails else by_place(name, spec) + 5 * (spec.input_transform.kind == "padding")

        parts = Answered(reached)
        return run(sub_jobs=parts, seeds=2, confidence=0.5).result["search"], parts.rounds

    undisturbed, rounds = search(())
    first = rounds[-1][0]
    fallen = int(first.split("-")[1])
    found, rounds = search((first,))
    assert undisturbed["winner"]["trial"] == fallen != found["winner"]["trial"]
    assert fallen not in [row["trial"] for row in found["finalists"]]
    assert rounds[-1] != rounds[-2]  # one more round, of the next in line
    row = found["trials"][fallen]
    assert (row["state"], row["error"]["detail"]) == ("failed", "loss nan")
    assert row["seconds"] == undisturbed["trials"][fallen]["seconds"] + 7


def test_retrained_on_validation_images_too_where_asked(run):
    def reached(name, spec):
        return 19 if spec.label_mapping.kind == "iterative" and spec.input_transform.kind == "padding" else 5

    result = run(sub_jobs=Answered(reached), retrain=True, label_mappings=[{"kind": "iterative"}]).result
    assert result["training"]["with_validation_images"] is True
    assert result["metrics"]["validation"] == {"n": 20, "accuracy": 0.95, "loss": 1.0}
    assert result["metrics"]["test"]["n"] == 3
    assert "trained again, on training and validation images together" in result["verdict"]["reason"]
    probe = run(sub_jobs=Answered(), retrain=True).result
    assert probe["search"]["winner"]["name"] == "linear_probe"
    assert probe["training"]["with_validation_images"] is False


def test_no_round_begins_when_the_seconds_are_spent(run):
    parts = Answered(by_place, seconds=3.0)
    found = run(sub_jobs=parts, parallel=2, budget={"max_seconds": 10, "max_trials": 50}).result["search"]
    assert found["ended_by"] == "seconds"
    assert [len(names) for names in parts.rounds] == [2, 1, 1]  # what is left, 4 and 1, has room for one of 3 seconds
    assert found["seconds"] == 12
    assert [spec.budget.max_seconds for spec in parts.specs.values()] == [10, 10, 4, 1]
    assert {row["state"] for row in found["trials"]} >= {"stopped"}


def test_a_budget_of_one_trial_is_the_probe(run):
    found = run(budget={"max_trials": 1}, parallel=1).result["search"]
    assert [row["name"] for row in found["trials"]] == ["linear_probe"]
    assert found["comparisons"] == []


def test_a_trial_that_fails_is_told_and_the_rest_goes_on(run):
    def reached(name, spec):
        if spec.input_transform.kind == "padding":
            return SubJobEnd("failed", error={"code": "training_diverged", "detail": "loss nan", "param": None})
        return 10

    found = run(sub_jobs=Answered(reached)).result["search"]
    failed = [row for row in found["trials"] if row["state"] == "failed"]
    assert failed
    assert all(row["error"]["code"] == "training_diverged" and row["validation_accuracy"] is None for row in failed)


def test_all_trials_failing_fail_the_job(run):
    failed = SubJobEnd("failed", error={"code": "training_diverged", "detail": "loss nan", "param": None})
    with pytest.raises(SpecError, match="none of 6 trials succeeded: loss nan"):
        run(sub_jobs=Answered(lambda name, spec: failed))


def test_cells_that_cannot_be_are_told_and_the_rest_runs(run):
    transforms = [{"kind": "padding", "image_size": 400}, {"kind": "watermark"}]
    found = run(sub_jobs=Answered(by_place), input_transforms=transforms).result["search"]
    impossible = [cell for cell in found["cells"] if cell["error"]]
    assert len(impossible) == 2
    assert all("400" in cell["error"]["detail"] for cell in impossible)
    assert {row["input_transform"]["kind"] for row in found["trials"]} == {"identity", "watermark"}


def test_without_any_cell_the_baselines_are_left(run):
    found = run(sub_jobs=Answered(), input_transforms=[{"kind": "padding", "image_size": 400}]).result["search"]
    assert [row["name"] for row in found["trials"]] == ["linear_probe", "zero_shot"]


def test_without_anything_that_can_be_the_first_reason_is_told(run, tiny_backbone, monkeypatch):
    monkeypatch.setattr(type(tiny_backbone), "available_outputs", ("source_logits",))
    with pytest.raises(SpecError, match=r"none of 0 trials succeeded: .*400"):
        run(sub_jobs=Answered(), input_transforms=[{"kind": "padding", "image_size": 400}])


def test_without_lists_the_space_is_what_the_backbone_has(run):
    found = run(sub_jobs=Answered(by_place), input_transforms=[], label_mappings=[]).result["search"]
    kinds = {(cell["input_transform"]["kind"], cell["label_mapping"]["kind"]) for cell in found["cells"]}
    assert len(kinds) == len(found["cells"]) == 3 * 4
    assert {mapping for _, mapping in kinds} == {"linear", "iterative", "bayesian_plus", "text"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": {"max_trials": 0}}, "greater than or equal to 1"),
        ({"budget": {"max_seconds": 0}}, "greater than 0"),
        ({"min_epochs": 4}, "min_epochs 4 is more than max_epochs 3"),
        ({"evaluation": {"validation_fraction": 0}}, "a search chooses on validation images"),
        ({"input_transforms": [{"kind": "watermark"}] * 15, "label_mappings": [{"kind": "text"}] * 14}, "210 cells"),
        ({"label_mappings": [{"kind": "nonsense"}]}, "nonsense"),
        ({"search": ["momentum"]}, "learning_rate"),
        ({"ranking": "job_1", "diagnosed": 2}, "give one of them"),
        ({"confidence": 0.4}, "greater than or equal to 0.5"),
    ],
)
def test_specs_that_are_refused(run, fields, message):
    with pytest.raises(ValidationError, match=message):
        run(**fields)

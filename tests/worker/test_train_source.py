"""A source model through the real attempt: stored, named by later jobs, gone with its job."""

import pytest

from mr_core.backbones.loading import load_backbone
from service import adapters, backbones, jobs
from service.errors import BackboneInUse, TrainedBackboneMissing
from tests.worker.conftest import TENANT
from worker.supervisor import ATTEMPT_COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SOURCE = {
    "architecture": {"kind": "mlp", "depth": 1, "width": 16},
    "canvas_size": 12,
    "trainer": {"epochs": 3, "batch_size": 4},
}
AROUND = {
    "label_mapping": {"kind": "identity"},
    "input_transform": {"kind": "padding", "image_size": 8},
    "trainer": {"kind": "gradient", "epochs": 1, "batch_size": 8},
}


def submit(bench, kind, **fields):
    with bench.database.session() as session:
        return jobs.create_job(
            session,
            tenant=TENANT,
            kind=kind,
            spec={"kind": kind, "dataset": bench.dataset_id, **fields},
            queue="cpu",
            dataset_id=bench.dataset_id,
        ).id


def run(bench, kind, **fields):
    settings = bench.settings.model_copy(update={"lease_s": 30.0})
    return bench.run(submit(bench, kind, **fields), command=ATTEMPT_COMMAND, settings=settings)


def delete(bench, job_id):
    with bench.database.session() as session:
        jobs.delete(session, TENANT, job_id)


def test_a_trained_source_is_a_backbone_until_its_job_is_deleted(bench):
    trained = run(bench, "train_source", **SOURCE)
    assert (trained.status, trained.error) == ("succeeded", None)
    backbone_id = f"trained:{trained.id}"
    assert trained.result["backbone"] == backbone_id
    with bench.database.session() as session:
        row = backbones.get(session, TENANT, backbone_id)
        assert (row.job_id, row.parameters) == (trained.id, trained.result["parameters"]["total"])
        assert row.outputs == {"labels": 2, "embedding": 16, "text": False}
        description = backbones.describe(row)
    with bench.blobs.local_path(row.sha256) as weights:
        assert load_backbone(description, weights=weights).source_classes == ("class0", "class1")

    around = run(bench, "reprogram", backbone=backbone_id, evaluation={"random_backbone": True}, **AROUND)
    assert (around.status, around.error) == ("succeeded", None)
    with bench.database.session() as session:
        config = adapters.get(session, TENANT, around.result["adapter"]).config
    assert (config["backbone"]["id"], config["backbone"]["sha256"]) == (backbone_id, row.sha256)

    waiting = submit(bench, "evaluate", adapter=around.result["adapter"])
    with pytest.raises(BackboneInUse, match=waiting):
        delete(bench, trained.id)
    bench.cancel(waiting)
    delete(bench, trained.id)
    with bench.database.session() as session, pytest.raises(TrainedBackboneMissing):
        backbones.get(session, TENANT, backbone_id)
    for named in (backbone_id, f"random:{backbone_id}"):
        late = run(bench, "reprogram", backbone=named, **AROUND)
        assert (late.status, late.error["code"]) == ("failed", "trained_backbone_missing")
        assert f"the job {trained.id} that trained it was deleted" in late.error["detail"]
        assert late.error["param"] == "backbone"
    judged = run(bench, "evaluate", adapter=around.result["adapter"])
    assert (judged.status, judged.error["code"]) == ("failed", "trained_backbone_missing")


def test_a_source_on_the_map_of_another_source(bench):
    base = run(bench, "train_source", **SOURCE | {"architecture": {"kind": "cnn", "depth": 1, "width": 4}})
    changes = {"canvas_size": None, "backbone": base.result["backbone"], "architecture": {"kind": "cnn", "depth": 1}}
    on_map = run(bench, "train_source", **SOURCE | changes)
    assert (on_map.status, on_map.error) == ("succeeded", None)
    assert on_map.result["input"] == {"shape": [4, 6, 6], "from": "feature_map"}
    assert on_map.result["backbone_unchanged"] is True
    delete(bench, base.id)  # the weights that it needs are in its own file
    around = run(bench, "reprogram", backbone=on_map.result["backbone"], **AROUND)
    assert (around.status, around.error) == ("succeeded", None)

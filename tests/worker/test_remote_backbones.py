"""A job on a model that only answers, through supervisor and database: counted, resumed, its secret kept."""

import io
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from mr_core.errors import BackboneError, RemoteNotAnswering, RemoteRefused
from service import adapters, backbones, jobs
from service.models import Event, StoredAdapter, StoredCheckpoint
from tests.remote_model import serving_model
from tests.worker.conftest import TENANT, wait_until
from tests.worker.test_execution import pid_of
from worker import inference
from worker.inference import Predictor
from worker.supervisor import ATTEMPT_COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SECRET = "Bearer m0st-hidden"
PLAIN, VALIDATION, TEST, STEP = 20, 4, 4, 12 * 2
UNLIKE = 16  # plain images: those of the test split are among those of the other


@pytest.fixture(scope="module")
def server():
    with serving_model() as model:
        yield model


@pytest.fixture
def model(server):
    return server.forget()


@pytest.fixture
def remote(bench, model, tmp_path):
    """The bench with the model registered, its secret given."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    secret = {"header": "Authorization", "value": SECRET, "origin": model.url, "tenants": [TENANT]}
    (folder / "api_key.json").write_text(json.dumps(secret))
    bench.settings = bench.settings.model_copy(update={"allow_loopback_urls": True, "remote_secrets_dir": folder})
    with bench.database.session() as session:
        description = model.description(batch_size=4, secret="api_key", attempts=1)
        backbones.register_remote(session, tenant=TENANT, name="api", description=description)
    return bench


def submit(bench, **changes):
    spec = {
        "kind": "reprogram",
        "dataset": bench.dataset_id,
        "backbone": "remote:api",
        "input_transform": {"kind": "padding", "image_size": 24},
        "label_mapping": {"kind": "frequent"},
        "trainer": {"kind": "spsa", "epochs": 3, "batch_size": 12, "draws": 1},
        "evaluation": {"validation_fraction": 0.25},
        "budget": {"max_images": 300},
        **changes,
    }
    with bench.database.session() as session:
        return jobs.create_job(
            session, tenant=TENANT, kind="reprogram", spec=spec, queue="cpu", dataset_id=bench.dataset_id
        ).id


def archive(bench, job):
    with bench.database.session() as session:
        return bench.blobs.read(session, adapters.get(session, TENANT, job.result["adapter"]).sha256)


def test_counted_as_served_and_the_secret_is_nowhere(remote, model, capfd):
    job = remote.run(submit(remote), command=ATTEMPT_COMMAND)
    assert (job.status, job.error) == ("succeeded", None)
    assert (job.result["remote"]["calls"], job.result["remote"]["images"]) == (model.served, model.images)
    assert UNLIKE + 3 * STEP < model.images <= PLAIN + 12 + VALIDATION + 3 * (STEP + VALIDATION) + TEST
    assert all(headers["Authorization"] == SECRET for headers in model.headers)
    with remote.database.session() as session:
        rows = [*session.query(Event).filter_by(job_id=job.id), *session.query(StoredAdapter)]
        rows += list(session.query(StoredCheckpoint).filter_by(job_id=job.id))
        written = " ".join(str(vars(row)) for row in rows)
    written += str(vars(job)) + archive(remote, job).decode("latin-1") + str(capfd.readouterr())
    assert "m0st-hidden" not in written
    assert "remote:api" in written


def test_a_second_job_pays_for_no_plain_image(remote, model):
    remote.run(submit(remote), command=ATTEMPT_COMMAND)
    before = model.images
    job = remote.run(submit(remote), command=ATTEMPT_COMMAND)
    assert (job.status, job.result["remote"]["images"]) == ("succeeded", before - UNLIKE)
    assert model.images == before + job.result["remote"]["images"]


def test_a_killed_attempt_does_not_spend_twice(remote, model):
    budget = PLAIN + 12 + 2 * (STEP + VALIDATION) + TEST + 7
    settings = remote.settings.model_copy(update={"lease_s": 30.0})
    model.faults += [None] * 8 + [("late", 3)]
    trainer = {"kind": "spsa", "epochs": 50, "batch_size": 12, "draws": 1}
    job_id = submit(remote, budget={"max_images": budget}, trainer=trainer)
    thread = remote.start(job_id, command=ATTEMPT_COMMAND, settings=settings)
    wait_until(lambda: model.served >= 9, timeout_s=90)
    os.kill(pid_of(job_id), signal.SIGKILL)
    thread.join(20)
    with remote.database.session() as session:
        noted = session.get(StoredCheckpoint, (job_id, "spent")).state
    assert noted["images"] >= model.images
    job = remote.run(job_id, command=ATTEMPT_COMMAND)
    assert (job.status, job.error) == ("succeeded", None)
    assert model.images <= job.result["remote"]["images"] <= budget
    assert job.result["remote"]["budget_spent"] is True


def test_a_broken_model_fails_the_job_with_its_code(remote, model):
    model.faults.append((401,))
    job = remote.run(submit(remote), command=ATTEMPT_COMMAND)
    assert (job.status, job.error["code"], job.error["param"]) == ("failed", "remote_refused", "backbone")
    model.faults.append("bad sum")
    job = remote.run(submit(remote), command=ATTEMPT_COMMAND)
    assert job.error["code"] == "remote_answer_invalid"
    job = remote.run(submit(remote, budget={"max_images": 50}), command=ATTEMPT_COMMAND)
    assert (job.error["code"], job.error["param"]) == ("call_budget_spent", "budget.max_images")


def test_predicts_by_what_is_registered_now(remote, model, monkeypatch):
    job = remote.run(submit(remote), command=ATTEMPT_COMMAND)
    predictor = Predictor(remote.database, remote.blobs, device=torch.device("cpu"), settings=remote.settings)
    picture = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(picture, "PNG")
    before = model.images

    def predict():
        images = [("a.png", picture.getvalue()), ("b.png", picture.getvalue())]
        return predictor.predict(job.result["adapter"], tenant=TENANT, images=images, top_k=2)[2]

    first = predict()
    assert [one.input for one in first] == ["a.png", "b.png"]
    assert first[0].top == first[1].top
    assert model.images == before + 1, "equal images are asked once"
    model.faults.append((429, "60"))
    with pytest.raises(RemoteNotAnswering, match="answered 429"):
        predict()
    with monkeypatch.context() as patch:
        patch.setattr(inference, "_ASKING_S", -1.0)
        with pytest.raises(RemoteNotAnswering, match="ask for fewer images"):
            predict()
    for _ in range(inference._MOST_ASKING):
        assert predictor._asking.acquire(blocking=False)
    with pytest.raises(RemoteNotAnswering, match="8 requests wait"):
        predict()
    predictor._asking.release(inference._MOST_ASKING)
    assert predict() == first
    model.faults.append((401,))
    with pytest.raises(RemoteRefused):
        predict()
    (remote.settings.remote_secrets_dir / "api_key.json").unlink()
    with pytest.raises(BackboneError, match="is not given to this tenant"):
        predict()
    with remote.database.session() as session:
        backbones.delete(session, TENANT, "remote:api")
    with pytest.raises(BackboneError, match="there is no backbone remote:api"):
        predict()
    predictor.close()

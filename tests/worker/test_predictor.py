"""Predictions over internal HTTP: the library's own answers, whatever they were batched with."""

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr

import mr_core.backbones.builtin.mini_clip as mini_clip
from mr_core.adapter import load_adapter, save_adapter
from mr_core.adapter_file import read_adapter, zip_adapter
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.primed import primed
from mr_core.job_spec import JobSpec
from mr_core.jobs.outcome import AdapterContent
from mr_core.reprogrammed import ReprogrammedModel
from service import adapters
from service.errors import ConfigurationError
from worker.inference import Predictor
from worker.predictor import create_app, run_predictor

CLASSES = ["a", "b", "c"]
WEIGHTS = Path(mini_clip.__file__).with_name("weights.safetensors")
DESCRIPTION = {"id": "uploaded", "library": "builtin", "architecture": "mini_clip"}


def image(seed, side=40):
    data = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(side * side * 3)).save(data, "PNG")
    return data.getvalue()


def make_adapter(seed, backbone_id="builtin/mini-clip", mapping="linear", scale=1.0, n_primed=0):
    spec = JobSpec.parse(
        {"kind": "reprogram", "dataset": "ds_x", "backbone": backbone_id, "label_mapping": {"kind": mapping}}
    )
    backbone = load_backbone(backbone_id)
    if n_primed:
        backbone = primed(backbone, torch.zeros(n_primed, backbone.width("embedding")), torch.zeros(n_primed))
    model = ReprogrammedModel(
        spec.input_transform.build(backbone.preprocessing), backbone, spec.label_mapping.build(backbone, CLASSES)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapter_parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return zip_adapter(save_adapter(model, spec=spec, classes=CLASSES, record={}))


@pytest.fixture(scope="module")
def archives():
    return [make_adapter(seed) for seed in range(3)]


@pytest.fixture
def store(database, blobs):
    def run(archive, tenant="t"):
        with database.session() as session:
            sha256 = blobs.put_bytes(session, archive)
            return adapters.create(
                session, tenant=tenant, job_id=None, sha256=sha256, size_bytes=len(archive), config={}
            ).id

    return run


@pytest.fixture
def client(settings, database):
    with TestClient(create_app(settings, database, device="cpu"), raise_server_exceptions=False) as client:
        yield client


def ask(client, adapter_id, *images, tenant="t", top_k=3, **headers):
    files = [("images", (f"{n}.png", content, "image/png")) for n, content in enumerate(images)]
    parameters = {"adapter": adapter_id, "tenant": tenant, "top_k": top_k}
    return client.post("/predict", params=parameters, files=files, headers=headers)


def test_answers_are_the_librarys_for_one_image_and_for_many(client, store, archives):
    adapter_id = store(archives[0])
    classifier = load_adapter(archives[0])
    contents = [image(seed) for seed in range(20)]
    answer = ask(client, adapter_id, *contents).json()
    assert answer["adapter"] == adapter_id
    assert len(answer["adapter_sha256"]) == len(answer["backbone_sha256"]) == 64
    for n, (found, content) in enumerate(zip(answer["predictions"], contents, strict=True)):
        (expected,) = classifier.predict([content], top_k=3)
        assert (found["input"], found["label"]) == (f"{n}.png", expected.label)
        assert [label for label, _ in found["top"]] == [label for label, _ in expected.top]
        assert [p for _, p in found["top"]] == pytest.approx([p for _, p in expected.top], abs=1e-6)
        assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)


def test_concurrent_requests_to_several_adapters_get_their_own_answers(client, store, archives):
    adapter_ids = [store(archive) for archive in archives]
    classifiers = [load_adapter(archive) for archive in archives]
    asked = [(n % 3, image(n)) for n in range(24)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda one: ask(client, adapter_ids[one[0]], one[1]).json(), asked))
    for (n, content), answer in zip(asked, answers, strict=True):
        (expected,) = classifiers[n].predict([content], top_k=3)
        assert answer["predictions"][0]["probability"] == pytest.approx(expected.probability, abs=1e-6)
    health = client.get("/health").json()
    assert (health["status"], health["backbones"], health["adapters"]) == ("ready", 1, 3)


@pytest.mark.parametrize("comes_first", ["honest", "lying"])
def test_an_adapter_that_names_a_false_backbone_is_refused_and_disturbs_no_other(client, store, archives, comes_first):
    content = read_adapter(archives[0])
    config = json.loads(content.config)
    config["backbone"] |= {"random_seed": 7, "pretrained": None, "sha256": None}  # and the digest of the trained one
    lie = zip_adapter(AdapterContent(config=json.dumps(config).encode(), weights=content.weights))
    honest, lying = store(archives[0], "a"), store(lie, "b")
    for name in ("honest", "lying") if comes_first == "honest" else ("lying", "honest"):
        if name == "honest":
            assert ask(client, honest, image(0), tenant="a").status_code == 200
        else:
            answer = ask(client, lying, image(0), tenant="b")
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_backbone")
            assert "is not the backbone this adapter was trained on" in answer.json()["detail"]


def test_images_share_a_pass_only_where_their_answers_do_not_feel_it(database, blobs, store):
    predictor = Predictor(database, blobs, device=torch.device("cpu"))
    steep, flat = (store(make_adapter(1, scale=scale)) for scale in (30.0, 1e-3))
    contents = [(str(n), image(n)) for n in range(6)]
    for adapter_id in (steep, flat):
        _, _, together = predictor.predict(adapter_id, tenant="t", images=contents, top_k=1)
        alone = [predictor.predict(adapter_id, tenant="t", images=[one], top_k=1)[2][0] for one in contents]
        for joint, single in zip(together, alone, strict=True):
            assert joint.probability == pytest.approx(single.probability, abs=1e-6)
    sizes = [predictor.adapters.get(sha256, lambda: None).pass_size for sha256 in list(predictor.adapters._values)]
    assert sizes[0] == 1
    assert sizes[1] > 1
    predictor.close()


def test_a_random_backbone_works_too(client, store):
    archive = make_adapter(7, backbone_id="random:builtin/mini-clip")
    (expected,) = load_adapter(archive).predict([image(1)], top_k=3)
    found = ask(client, store(archive), image(1)).json()["predictions"][0]
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"GIF89a no image", image(1)[:60]])
def test_an_image_that_is_none_is_named(client, store, archives, content):
    answer = ask(client, store(archives[0]), image(1), content)
    assert answer.status_code == 422
    assert (answer.json()["code"], answer.json()["param"]) == ("unreadable_image", "images")
    assert answer.json()["detail"].startswith("1.png: ")
    assert ask(client, store(archives[0]), image(1)).status_code == 200


@pytest.mark.parametrize("tenant", ["t", "other"])
def test_an_unknown_adapter_and_another_tenants_are_not_found(client, store, archives, tenant):
    adapter_id = "ad_absent" if tenant == "t" else store(archives[0])
    answer = ask(client, adapter_id, image(1), tenant=tenant)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_damaged_adapter_is_refused(client, store):
    answer = ask(client, store(b"not a zip"), image(1))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_adapter")


def test_missing_images_and_a_bad_top_k_are_refused(client, store, archives):
    adapter_id = store(archives[0])
    assert ask(client, adapter_id).json()["code"] == "validation_failed"
    answer = ask(client, adapter_id, image(1), top_k=0)
    assert (answer.status_code, answer.json()["param"]) == (422, "top_k")


def test_the_shared_secret_is_asked_for(settings, database, store, archives):
    guarded = settings.model_copy(update={"predictor_token": SecretStr("s3cret")})
    with TestClient(create_app(guarded, database, device="cpu")) as client:
        adapter_id = store(archives[0])
        refused = ask(client, adapter_id, image(1))
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert ask(client, adapter_id, image(1), **{"X-MR-Predictor-Token": "wrong"}).status_code == 401
        assert ask(client, adapter_id, image(1), **{"X-MR-Predictor-Token": "s3cret"}).status_code == 200


def test_an_address_beyond_this_machine_needs_the_secret(settings):
    with pytest.raises(ConfigurationError, match="MR_PREDICTOR_TOKEN"):
        run_predictor(settings.model_copy(update={"predictor_host": "0.0.0.0"}))


def test_inspection_tells_what_the_weights_are(client, blobs):
    stored = blobs.put_file(WEIGHTS)
    answer = client.post("/inspect-backbone", json={"sha256": stored.sha256, "description": DESCRIPTION}).json()
    backbone = load_backbone("builtin/mini-clip")
    assert answer["sha256"] == stored.sha256
    assert answer["parameters"] == sum(parameter.numel() for parameter in backbone.source.parameters())
    assert answer["outputs"] == backbone.output_shapes.model_dump()
    assert answer["preprocessing"]["size"] == backbone.canvas_size


@pytest.mark.parametrize(
    ("content", "changes", "status", "code"),
    [
        (b"not safetensors", {}, 422, "invalid_backbone"),
        (None, {"architecture": "unknown"}, 422, "invalid_backbone"),
        (b"absent", {}, 404, "not_found"),
    ],
)
def test_weights_that_do_not_fit_are_refused(client, blobs, tmp_path, content, changes, status, code):
    path = WEIGHTS
    if content is not None:
        path = tmp_path / "file"
        path.write_bytes(content)
    sha256 = "0" * 64 if content == b"absent" else blobs.put_file(path).sha256
    answer = client.post("/inspect-backbone", json={"sha256": sha256, "description": DESCRIPTION | changes})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_backbones_are_evicted_over_the_cap(database, blobs, store, archives):
    predictor = Predictor(database, blobs, device=torch.device("cpu"), max_bytes=1)
    for archive in (archives[0], make_adapter(1, backbone_id="random:builtin/mini-clip"), archives[0]):
        predictor.predict(store(archive), tenant="t", images=[("x", image(1))], top_k=1)
        assert len(predictor.backbones) == 1
    predictor.close()


def test_the_head_of_a_primed_backbone_is_held_by_its_adapter(database, blobs, store):
    predictor, held = Predictor(database, blobs, device=torch.device("cpu")), []
    for n_primed in (1000, 2000):
        archive = make_adapter(0, mapping="frequent", n_primed=n_primed)
        predictor.predict(store(archive), tenant="t", images=[("x", image(1))], top_k=1)
        held.append(predictor.adapters.held_bytes - sum(held))
    width = load_backbone("builtin/mini-clip").width("embedding")
    assert held[1] - held[0] >= 1000 * 4 * (width + 1)
    assert len(predictor.backbones) == 1
    predictor.close()

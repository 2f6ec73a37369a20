"""Adapters from elsewhere: looked at before anything of them is kept."""

import io
import json
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

GOLDEN = (Path(__file__).parents[1] / "contracts" / "adapters" / "padding_iterative_v1.zip").read_bytes()
CONFIG, WEIGHTS = "config.json", "adapter.safetensors"


def _files():
    with zipfile.ZipFile(io.BytesIO(GOLDEN)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(files, method=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def changed(*path, value=None):
    """The golden adapter with one place of its config changed, or without it."""
    config = json.loads(_files()[CONFIG])
    *above, last = path
    place = config
    for key in above:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return _zip(_files() | {CONFIG: json.dumps(config).encode()})


def send(client, content):
    return client.post("/v1/adapters", files={"file": ("adapter.zip", content)})


def test_an_adapter_is_imported_and_downloaded_as_it_was(client):
    answer = send(client, GOLDEN)
    assert answer.status_code == 201, answer.text
    adapter = answer.json()
    assert (adapter["job"], adapter["backbone"]) == (None, "builtin/mini-clip")
    assert adapter["config"] == json.loads(_files()[CONFIG])
    assert answer.headers["Location"] == f"/v1/adapters/{adapter['id']}"
    assert client.get(f"/v1/adapters/{adapter['id']}").json() == adapter
    assert client.get(f"/v1/adapters/{adapter['id']}/content").content == GOLDEN


def test_the_same_bytes_again_are_the_same_adapter(gateway, client, tenant):
    first = send(client, GOLDEN).json()
    again = send(client, GOLDEN)
    assert (again.status_code, again.json()) == (200, first)
    with ThreadPoolExecutor(4) as threads:
        assert {answer.json()["id"] for answer in threads.map(lambda _: send(client, GOLDEN), range(4))} == {
            first["id"]
        }
    assert len(client.get("/v1/adapters").json()["data"]) == 1
    with gateway.client(f"{tenant}-other") as other:
        answer = send(other, GOLDEN)
        assert answer.status_code == 201
        assert answer.json()["id"] != first["id"]


def _tensors(header):
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda: b"", "invalid_adapter", "not an adapter: it is nothing"),
        (lambda: b"hello there, I am no zip", "invalid_adapter", "it is text"),
        (lambda: GOLDEN[:-40], "invalid_archive", "truncated"),
        (lambda: _zip({}), "invalid_adapter", "the zip holds nothing"),
        (lambda: _zip({"train/cat/a.png": b"x"}), "invalid_adapter", "the zip holds 'train/cat/a.png'"),
        (lambda: _zip({CONFIG: _files()[CONFIG]}), "invalid_adapter", "expected config.json and adapter.safetensors"),
        (lambda: _zip(_files() | {"run.pkl": b"x"}), "invalid_adapter", "'run.pkl'"),
        (lambda: _zip(_files() | {"../a": b"x"}), "unsafe_archive", "leads out"),
        (lambda: _zip({CONFIG: bytes(40 << 20), WEIGHTS: b"x"}, zipfile.ZIP_DEFLATED), "archive_bomb", "inflate"),
        (lambda: _zip({CONFIG: bytes(9 << 20), WEIGHTS: b"x"}), "invalid_adapter", "config.json has 9437184 bytes"),
        (lambda: _zip(_files() | {CONFIG: b"no json"}), "invalid_adapter", "is not a JSON object"),
        (lambda: _zip(_files() | {CONFIG: b"[1]"}), "invalid_adapter", "is not a JSON object"),
        (lambda: _zip(_files() | {CONFIG: b"[" * 100_000}), "invalid_adapter", "is not a JSON object"),
        (lambda: changed("format_version"), "invalid_adapter", "format_version"),
        (lambda: changed("format_version", value=True), "invalid_adapter", "format True"),
        (lambda: changed("format_version", value=2), "adapter_too_new", "format 2, this version reads formats 1 to 1"),
        (lambda: changed("required_features", value=["telepathy"]), "adapter_too_new", "telepathy"),
        (lambda: changed("required_features", value=5), "invalid_adapter", "required_features"),
        (lambda: changed("required_features", value=[[1]]), "invalid_adapter", "required_features"),
        (lambda: changed("spec"), "invalid_adapter", "'spec'"),
        (lambda: changed("spec", "kind", value="diagnose"), "invalid_adapter", "kind"),
        (lambda: changed("spec", "input_transform", "kind", value="sorcery"), "invalid_adapter", "input_transform"),
        (lambda: changed("spec", "surprise", value=1), "invalid_adapter", "surprise"),
        (lambda: changed("classes"), "invalid_adapter", "'classes'"),
        (lambda: changed("classes", value=["one"]), "invalid_adapter", "1 classes; expected 2"),
        (lambda: changed("classes", value=["a", "a"]), "invalid_adapter", "different names"),
        (lambda: changed("backbone"), "invalid_adapter", "'backbone'"),
        (lambda: changed("backbone", value="mini"), "invalid_adapter", "damaged"),
        (lambda: changed("backbone", "library", value="pickles"), "invalid_adapter", "library"),
        (lambda: changed("preprocessing", "size", value=-1), "invalid_adapter", "size"),
        (lambda: changed("metrics", value=float("nan")), "invalid_adapter", "NaN"),
        (lambda: _zip(_files() | {WEIGHTS: b""}), "invalid_adapter", "adapter.safetensors is not a safetensors file"),
        (lambda: _zip(_files() | {WEIGHTS: b"\x80\x04pickled" * 9}), "invalid_adapter", "announce a header"),
        (lambda: _zip(_files() | {WEIGHTS: _files()[WEIGHTS][:-1]}), "invalid_adapter", "bytes of tensors"),
        (lambda: _zip(_files() | {WEIGHTS: _tensors({})}), "invalid_adapter", "holds no tensor"),
        (lambda: changed("provenance", value="a\x00b"), "invalid_value", ""),
    ],
)
def test_what_is_no_adapter_is_refused_and_nothing_stays(gateway, client, make, code, words):
    before = gateway.kept()
    answer = send(client, make())
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert words in answer.json()["detail"]
    assert code == "invalid_value" or answer.json()["param"] == "file"
    assert gateway.kept() == before
    assert client.get("/v1/adapters").json()["data"] == []


def test_an_encrypted_zip_is_refused(client):
    data = bytearray(GOLDEN)
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    assert send(client, bytes(data)).json()["code"] == "unsafe_archive"


def test_too_large_an_adapter(gateway, client):
    before = gateway.kept()
    answer = send(client, bytes(65 << 20))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert gateway.kept() == before


def test_a_missing_file_and_an_unknown_field(client):
    answer = client.post("/v1/adapters", files={"name": (None, "x")})
    assert (answer.status_code, answer.json()["param"]) == (422, "name")
    answer = client.post(
        "/v1/adapters", content=b"--b--\r\n", headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert (answer.status_code, answer.json()["param"]) == (422, "file")


def _around(sha256):
    backbone = {
        "id": "bb_elsewhere", "library": "builtin", "architecture": "cifar_resnet20", "sha256": sha256,
        "state_sha256": "3" * 64,
    }  # fmt: skip
    return changed("backbone", value=backbone)


def test_an_adapter_around_uploaded_weights_needs_them_registered_by_the_tenant(gateway, client, stand_in, tenant):
    registered = client.get(f"/v1/backbones/{stand_in.backbone()}").json()
    assert send(client, _around(registered["sha256"])).status_code == 201
    with gateway.client(f"{tenant}-other") as stranger:
        answer = send(stranger, _around(registered["sha256"]))
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["param"]) == (422, "invalid_backbone", "file")
        assert registered["sha256"] in problem["detail"]
        assert "POST /v1/backbones" in problem["detail"]
    assert send(client, _around(None)).json()["code"] == "invalid_backbone"


def test_a_quota_of_adapters(gateway, client, monkeypatch):
    limits = gateway.settings.model_copy(update={"max_adapters": 1})
    monkeypatch.setitem(gateway.app.state.parts.__dict__, "settings", limits)
    assert send(client, GOLDEN).status_code == 201
    answer = send(client, changed("metrics", value={}))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")

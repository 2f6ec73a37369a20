"""Which tenant may send which secret where."""

import json

import pytest

from mr_core.backbones.remote.description import RemoteDescription
from mr_core.backbones.remote.transport import NoReply, NotSent
from mr_core.errors import BackboneError
from service.remote_models import access, guarded, secret_headers
from service.settings import Settings
from tests.remote_model import serving_model

SECRET = {"header": "X-Key", "value": "s3cret", "origin": "https://api.example", "tenants": ["a", "b"]}


def remote(url="https://api.example/v1", secret="key"):
    return RemoteDescription(url=url, protocol="json", answer="logits", secret=secret)


@pytest.fixture
def folder(tmp_path):
    def write(**changes):
        (tmp_path / "key.json").write_text(json.dumps(SECRET | changes))
        return tmp_path

    return write


def test_goes_to_its_origin_for_its_tenants(folder):
    for tenant in ("a", "b"):
        assert secret_headers(folder(), tenant, remote()) == {"X-Key": "s3cret"}
    assert secret_headers(folder(tenants=["*"]), "c", remote()) == {"X-Key": "s3cret"}
    assert secret_headers(folder(), "a", remote("https://API.example:443/v2")) == {"X-Key": "s3cret"}


@pytest.mark.parametrize(
    ("tenant", "url", "changes"),
    [
        ("c", "https://api.example/v1", {}),
        ("*", "https://api.example/v1", {}),
        ("a", "https://evil.example/v1", {}),
        ("a", "https://api.example.evil.example/v1", {}),
        ("a", "https://api.example:8443/v1", {}),
        ("a", "http://api.example/v1", {}),
        ("a", "https://evil.example/https://api.example", {}),
        ("a", "https://api.example/v1", {"value": "a\r\nHost: b"}),
        ("a", "https://api.example/v1", {"value": "s3cret "}),
        ("a", "https://api.example/v1", {"value": ""}),
        ("a", "https://api.example/v1", {"header": "X: Y"}),
        ("a", "https://api.example/v1", {"tenants": []}),
        ("a", "https://api.example/v1", {"more": 1}),
    ],
)
def test_is_refused_without_saying_why(folder, tenant, url, changes):
    with pytest.raises(BackboneError) as error:
        secret_headers(folder(**changes), tenant, remote(url))
    assert error.value.detail == f"the secret key is not given to this tenant for the host of {url}"
    assert error.value.__cause__ is None


def test_no_folder_and_no_file_are_refused_alike(tmp_path):
    for place in (None, tmp_path):
        with pytest.raises(BackboneError, match="is not given"):
            secret_headers(place, "a", remote())


def test_access_shows_no_secret(folder):
    settings = Settings(remote_secrets_dir=folder())
    assert "s3cret" not in repr(access(settings, "a", remote()))
    assert access(settings, "a", remote(secret=None)).headers == {}


def test_the_guard_holds_at_every_request():
    with serving_model() as model:
        send = guarded(allow_loopback=False)
        with pytest.raises(NotSent, match="https"):
            send(f"{model.url}/json", headers={}, content=b"{}", timeout_s=2)
        assert model.received == 0
        local = guarded(allow_loopback=True)
        model.faults += [(400,), ("late", 1)]
        assert local(f"{model.url}/json", headers={}, content=b"{}", timeout_s=5).status == 400
        with pytest.raises(NoReply, match="no answer within"):
            local(f"{model.url}/json", headers={}, content=b'{"images": [[[[0]]]]}', timeout_s=0.2)
    with pytest.raises(NotSent, match="no connection"):
        local(model.url, headers={}, content=b"{}", timeout_s=2)

"""Settings: from the environment, once, and refused where they contradict one another."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("MR_")]:
        monkeypatch.delenv(name)


def test_defaults_need_nothing() -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.host == "127.0.0.1"
    assert settings.blob_store_url == f"file://{Path.cwd() / 'mr-data' / 'blobs'}"


def test_environment_then_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_PORT", "9000")
    monkeypatch.setenv("MR_PREDICTOR_URLS", "http://a:1/, http://b:2")
    monkeypatch.setenv("MR_PROGRESS_DEADLINES_S", '{"training": 5}')
    settings = load_settings(host="0.0.0.0", port=None)
    assert (settings.host, settings.port) == ("0.0.0.0", 9000)
    assert settings.predictor_urls == ["http://a:1", "http://b:2"]
    assert (settings.progress_deadline("training"), settings.progress_deadline(None)) == (5, 600)


def test_heartbeats_must_fit_the_lease() -> None:
    with pytest.raises(ValidationError, match="at most a third of lease_s"):
        Settings(lease_s=10, heartbeat_s=5)


def test_every_setting_says_what_it_does_and_secrets_have_no_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if "token" in name or "secret" in name:
            assert field.default is None


def test_secrets_are_not_printed() -> None:
    assert "hush" not in repr(Settings(predictor_token="hush"))

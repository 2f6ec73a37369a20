import os
import socket
import stat

import pytest

from cli import up
from cli.main import main
from service import predictor_launch
from service.settings import load_settings


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("MR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(up._Service, "start", lambda *_: pytest.fail("nothing may start"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.test"])
def test_another_address_than_this_machine_is_refused_without_a_key(host, tmp_path, capsys):
    assert main(["up", "--data-dir", str(tmp_path / "data"), "--host", host]) == 2
    assert "refusing to listen" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_one_clear_line(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["up", "--data-dir", str(tmp_path), "--port", port]) == 2
    said = capsys.readouterr().err
    assert said == f"mr: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n"


def test_a_data_folder_in_use_is_one_clear_line(tmp_path, capsys):
    with up._locked(tmp_path):
        assert predictor_launch.is_supervised(tmp_path)
        assert main(["up", "--data-dir", str(tmp_path), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} is in use by another `mr up` (process {os.getpid()})" in said
    assert not predictor_launch.is_supervised(tmp_path)


def test_parts_of_a_killed_one_are_waited_for(tmp_path, monkeypatch):
    """The lock is held, but by nobody who lives: it is tried again until it is free."""
    tries = iter([False, False, True])
    monkeypatch.setattr(up, "_lock", lambda _: next(tries))
    predictor_launch.lock(tmp_path).write_text("4194304")
    with up._locked(tmp_path):
        assert predictor_launch.lock(tmp_path).read_text() == str(os.getpid())


def test_the_key_is_kept_and_readable_by_its_owner_only(database_url, tmp_path):
    path = tmp_path / "api-key"
    key = up._keep_key(database_url, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == key
    assert up._keep_key(database_url, path) == key


def test_a_key_of_another_database_is_replaced(database_url, tmp_path):
    path = tmp_path / "api-key"
    path.write_text("mr_unknown_secret")
    assert up._keep_key(database_url, path) != "mr_unknown_secret"


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_address_is_one_that_clients_can_use(host, expected):
    with socket.socket() as listener:
        listener.bind((host, 0))
        assert up._address(listener) == f"http://{expected}:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "variable", "expected"),
    [("127.0.0.1", None, "true"), ("0.0.0.0", None, None), ("127.0.0.1", "false", None), ("0.0.0.0", "true", None)],
)
def test_webhooks_may_lead_to_this_machine_where_only_it_can_ask(host, variable, expected, tmp_path, monkeypatch):
    """What the environment says goes first: the parts inherit it."""
    if variable is not None:
        monkeypatch.setenv("MR_ALLOW_LOOPBACK_URLS", variable)
    settings = load_settings(data_dir=tmp_path, host=host)
    with socket.socket() as listener:
        listener.bind((host, 0))
        service = up._Service(settings, listener, listener.fileno())
    assert service._variables.get("MR_ALLOW_LOOPBACK_URLS") == expected

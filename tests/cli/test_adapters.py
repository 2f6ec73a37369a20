import json

import pytest

from cli.main import main

ALIAS = {"name": "pets", "adapter": "ad_1", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z"}
ADAPTER = {"id": "ad_1", "backbone": "builtin/mini-clip", "classes": ["cat", "dog"]}


def test_import_sends_the_file(service, tmp_path, capsys):
    (tmp_path / "adapter.zip").write_bytes(b"the bytes")
    service.answers["POST /v1/adapters"] = (201, ADAPTER)
    assert main(["adapters", "import", str(tmp_path / "adapter.zip")]) == 0
    assert b"the bytes" in service.requests[0].body
    assert "ad_1" in capsys.readouterr().out


def test_import_of_what_is_refused(service, tmp_path, capsys):
    (tmp_path / "adapter.zip").write_bytes(b"x")
    service.answers["POST /v1/adapters"] = (422, {"code": "adapter_too_new", "detail": "format 2", "param": "file"})
    assert main(["adapters", "import", str(tmp_path / "adapter.zip")]) == 2
    assert capsys.readouterr().err == "mr: adapter_too_new: format 2 (file)\n"


def test_alias_makes_and_forgets_a_name(service, capsys):
    service.answers = {
        "PUT /v1/adapters/aliases/pets": (201, ALIAS),
        "DELETE /v1/adapters/aliases/pets": (204, b""),
    }
    assert main(["adapters", "alias", "pets", "ad_1", "--json"]) == 0
    assert service.requests[0].json == {"adapter": "ad_1"}
    assert json.loads(capsys.readouterr().out) == ALIAS
    assert main(["adapters", "alias", "pets", "--delete"]) == 0
    assert [request.method for request in service.requests] == ["PUT", "DELETE"]


@pytest.mark.parametrize("arguments", [["pets"], ["pets", "ad_1", "--delete"]])
def test_alias_wants_an_id_or_delete(service, capsys, arguments):
    assert main(["adapters", "alias", *arguments]) == 2
    assert "--delete" in capsys.readouterr().err
    assert not service.requests


def test_a_name_is_no_path(service):
    main(["adapters", "alias", "../ad_1", "--delete"])
    assert service.requests[0].path == "/v1/adapters/aliases/..%2Fad_1"


def test_aliases_are_listed(service, capsys):
    service.answers["GET /v1/adapters/aliases"] = (200, {"data": [ALIAS], "has_more": False})
    assert main(["adapters", "aliases"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["pets", "ad_1"]

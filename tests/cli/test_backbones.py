"""Registering a model that only answers over HTTP."""

import json

from cli.main import main

BACKBONE = {
    "id": "remote:api",
    "name": "api",
    "parameters": 0,
    "outputs": {"labels": 2, "embedding": None, "text": False},
}


def test_remote_sends_a_form_without_a_file(service, tmp_path, capsys):
    (tmp_path / "remote.json").write_text('{"url": "https://api.example/", "protocol": "json", "answer": "logits"}')
    service.answers["POST /v1/backbones"] = (201, BACKBONE)
    plain = '{"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}'
    told = ["--remote", f"@{tmp_path / 'remote.json'}", "--classes", '["a", "b"]', "--preprocessing", plain]
    assert main(["backbones", "remote", "api", *told]) == 0
    assert "remote:api" in capsys.readouterr().out
    body = service.requests[0].body.decode()
    for name, value in (("name", "api"), ("library", "remote"), ("classes", '["a", "b"]')):
        assert f'name="{name}"\r\n\r\n{value}\r\n' in body
    assert "filename" not in body


def test_json_that_is_none(service, capsys):
    arguments = ["--remote", "{", "--classes", "[]", "--preprocessing", "{}"]
    assert main(["backbones", "remote", "api", *arguments]) == 2
    assert "--remote is not JSON" in capsys.readouterr().err
    assert json.dumps(service.requests) == "[]"

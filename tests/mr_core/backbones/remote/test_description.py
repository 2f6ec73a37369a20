"""How a remote model is described, and what does not fit together."""

import pytest
from pydantic import ValidationError

from mr_core.backbones.description import Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.remote.description import RemoteDescription, remote_backbone, remote_of, remote_sha256
from mr_core.backbones.remote.transport import RemoteAccess
from mr_core.errors import BackboneError

VALUES = {"url": "https://models.example/v1", "protocol": "json", "answer": "logits"}
PLAIN = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))


def backbone(classes=("cat", "dog"), preprocessing=PLAIN, **changes):
    remote = RemoteDescription(**VALUES | changes)
    return remote_backbone("remote:m", remote, classes=classes, preprocessing=preprocessing)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"request": {}}, "0 times"),
        ({"request": {"a": "{images}", "b": ["{images}"]}}, "2 times"),
        ({"output": "scores"}, "belongs to the protocol 'open_inference'"),
        ({"protocol": "open_inference", "answers": "data"}, "belongs to the protocol 'json'"),
        ({"protocol": "open_inference", "pixels": "png"}, "belongs to the protocol 'json'"),
        ({"secret": "../etc/passwd"}, "secret"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"header": "x"}, "header"),
    ],
)
def test_refuses(changes, said):
    with pytest.raises(ValidationError, match=said):
        RemoteDescription(**VALUES | changes)


def test_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="each once"):
        backbone(classes=("cat", "cat"))
    with pytest.raises(ValueError, match="mean 0 and std 1"):
        backbone(pixels="uint8", preprocessing=Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(1, 1, 1)))


def test_the_digest_is_of_what_decides_the_answers():
    plain = remote_sha256(backbone())
    for same in ({"secret": "key"}, {"batch_size": 3}, {"timeout_s": 1}, {"requests_per_second": 1}, {"attempts": 1}):
        assert remote_sha256(backbone(**same)) == plain
    for other in ({"revision": "2"}, {"url": "https://models.example/v2"}, {"answer": "probabilities"}):
        assert remote_sha256(backbone(**other)) != plain
    assert remote_sha256(backbone(classes=("dog", "cat"))) != plain


def test_round_trip_and_loading():
    described = backbone(secret="key")
    assert remote_of(described).secret == "key"
    loaded = load_backbone(described, access=RemoteAccess())
    assert loaded.state_sha256 == remote_sha256(described)
    assert loaded.output_shapes.model_dump() == {"labels": 2, "embedding": None, "text": False}
    assert loaded.available_outputs == ("source_logits",)
    assert loaded.chunk_size == 64
    with pytest.raises(BackboneError, match="reached over HTTP"):
        load_backbone(described)
    with pytest.raises(BackboneError, match="no random variant"):
        load_backbone(described.model_copy(update={"random_seed": 1}), access=RemoteAccess())


def test_a_pass_is_whole_requests():
    sizes = {n: load_backbone(backbone(batch_size=n), access=RemoteAccess()).chunk_size for n in (1, 10, 64, 200)}
    assert sizes == {1: 64, 10: 60, 64: 64, 200: 200}

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from mr_core.adapter import load_adapter, save_adapter
from mr_core.adapter_file import CONFIG, WEIGHTS, read_adapter, read_config, zip_adapter
from mr_core.backbones.calibration import calibrate_batch_norm
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.errors import AdapterError, AdapterTooNew, BackboneError, DatasetError
from mr_core.jobs.base import JobSpec
from mr_core.jobs.outcome import AdapterContent
from mr_core.reprogrammed import ReprogrammedModel

CLASSES = ("ant", "bee", "cat")
SPEC = {"kind": "reprogram", "dataset": "ds_1", "input_transform": {"kind": "padding", "image_size": 32}}
GOLDEN = Path(__file__).parents[1] / "contracts" / "adapters"


def _adapter(backbone_id: str = MINI_CLIP, mapping: str = "linear") -> tuple[ReprogrammedModel, AdapterContent]:
    spec = JobSpec.parse(SPEC | {"backbone": backbone_id, "label_mapping": {"kind": mapping}})
    backbone = load_backbone(backbone_id)
    generator = torch.Generator().manual_seed(0)
    if backbone_id.startswith("random:"):
        calibrate_batch_norm(backbone, torch.rand(8, 3, 96, 96, generator=generator))
    model = ReprogrammedModel(
        spec.input_transform.build(backbone.preprocessing),
        accelerate(backbone),
        spec.label_mapping.build(backbone, CLASSES),
    )
    with torch.no_grad():
        for parameter in model.adapter_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model, save_adapter(model, spec=spec, classes=CLASSES, record={"metrics": {}})


@pytest.fixture(scope="module")
def linear() -> tuple[ReprogrammedModel, AdapterContent]:
    return _adapter()


def _image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def _with_config(content: AdapterContent, **changes) -> bytes:
    config = json.loads(content.config) | changes
    return zip_adapter(AdapterContent(config=json.dumps(config).encode(), weights=content.weights))


def test_three_lines_from_a_zip_a_folder_or_bytes(linear, tmp_path):
    model, content = linear
    archive = tmp_path / "adapter.zip"
    archive.write_bytes(zip_adapter(content))
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(archive).extractall(folder)
    picture = tmp_path / "picture.png"
    _image().save(picture)
    pixels = torch.from_numpy(np.array(_image())).permute(2, 0, 1)[None].float() / 255
    expected = model(pixels).double().softmax(1)[0].detach()
    for source in (archive, str(archive), folder, archive.read_bytes()):
        prediction = load_adapter(source).predict([picture], top_k=3)[0]
        assert prediction.label == CLASSES[int(expected.argmax())]
        assert prediction.probability == pytest.approx(float(expected.max()), abs=1e-9)
        assert dict(prediction.top) == pytest.approx(dict(zip(CLASSES, expected.tolist(), strict=True)), abs=1e-9)
        assert [p for _, p in prediction.top] == sorted((p for _, p in prediction.top), reverse=True)


def test_paths_bytes_and_pictures_are_one_image(linear, tmp_path):
    classifier = load_adapter(zip_adapter(linear[1]))
    buffer = io.BytesIO()
    _image().save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    answers = classifier.predict([_image(), buffer.getvalue(), tmp_path / "a.png", str(tmp_path / "a.png")])
    assert [answer.label for answer in answers] == [answers[0].label] * 4
    assert all(answer.probability == pytest.approx(answers[0].probability, abs=1e-6) for answer in answers)
    assert classifier.predict([]) == []


def test_an_unreadable_image_is_refused(linear):
    with pytest.raises(DatasetError):
        load_adapter(zip_adapter(linear[1])).predict([b"not an image"])


@pytest.mark.parametrize("mapping", ["iterative", "text", "linear"])
def test_equal_models_are_equal_bytes(mapping: str):
    assert zip_adapter(_adapter(mapping=mapping)[1]) == zip_adapter(_adapter(mapping=mapping)[1])


def test_one_accelerated_backbone_serves_many_adapters(linear):
    backbone = accelerate(load_backbone(MINI_CLIP))
    first, second = (load_adapter(zip_adapter(linear[1]), backbone=backbone) for _ in range(2))
    assert first.model.backbone is second.model.backbone is backbone


def test_a_random_backbone_comes_back_with_its_statistics():
    model, content = _adapter(f"random:{MINI_CLIP}")
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    loaded = load_adapter(zip_adapter(content)).model
    assert torch.equal(loaded(pixels), model(pixels))


def test_tells_what_is_not_an_adapter(tmp_path, linear):
    with pytest.raises(AdapterError, match="no adapter at"):
        load_adapter(tmp_path / "none.zip")
    with pytest.raises(AdapterError, match="not an adapter"):
        load_adapter(b"PK nonsense")
    with pytest.raises(AdapterError, match=f"has no {CONFIG}"):
        load_adapter(tmp_path)
    (tmp_path / CONFIG).write_text("[1, 2]")
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(AdapterError, match="format_version"):
        load_adapter(tmp_path)
    damaged = AdapterContent(config=linear[1].config, weights=linear[1].weights[:-9])
    with pytest.raises(AdapterError, match="damaged"):
        load_adapter(zip_adapter(damaged))


def test_refuses_a_newer_format_and_unknown_features(linear):
    with pytest.raises(AdapterTooNew, match="has format 99, this version reads formats 1 to 1"):
        load_adapter(_with_config(linear[1], format_version=99))
    with pytest.raises(AdapterError, match=r"lacks: \['telepathy'\]"):
        load_adapter(_with_config(linear[1], required_features=["telepathy"]))


def test_refuses_tensors_that_do_not_belong(linear):
    weights = safetensors.numpy.save({"label_mapping.weight": np.zeros((3, 5), np.float32)})
    with pytest.raises(AdapterError, match="its config describes"):
        load_adapter(zip_adapter(AdapterContent(config=linear[1].config, weights=weights)))


def test_refuses_another_backbone(linear):
    with pytest.raises(BackboneError, match="is not the backbone this adapter was trained on"):
        load_adapter(zip_adapter(linear[1]), backbone=load_backbone(f"random:{MINI_CLIP}"))


def test_without_the_weights_of_an_uploaded_backbone_it_names_their_checksum(linear):
    config = json.loads(linear[1].config)
    config["backbone"] |= {"id": "bb_1", "pretrained": None, "sha256": "ab" * 32}
    with pytest.raises(BackboneError, match=f"sha256 {'ab' * 32}"):
        load_adapter(_with_config(linear[1], backbone=config["backbone"]))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.zip")), ids=lambda path: path.stem)
def test_released_adapters_keep_loading(path: Path):
    """Saved when their format was released, with the answers they gave then."""
    answers = json.loads(path.with_suffix(".json").read_text())
    classifier = load_adapter(path)
    assert read_config(read_adapter(path))["format_version"] == answers["format_version"]
    for answer in answers["predictions"]:
        found = classifier.predict([_image(answer["image_seed"])])[0]
        assert found.label == answer["label"]
        assert found.probability == pytest.approx(answer["probability"], abs=1e-4)


def test_there_are_released_adapters():
    assert list(GOLDEN.glob("*.zip"))

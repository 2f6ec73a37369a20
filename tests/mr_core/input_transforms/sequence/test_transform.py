import pytest
import torch
from pydantic import ValidationError

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.input_transforms.sequence.spec import SequenceSpec
from mr_core.input_transforms.watermark.spec import WatermarkSpec

CANVAS = Preprocessing(size=16, mean=(0.5,) * 3, std=(0.5, 0.25, 0.1))


def test_each_canvas_is_the_next_image():
    spec = SequenceSpec(
        transforms=(FullyConnectedSpec(image_size=4), PaddingSpec(image_size=8), WatermarkSpec(width=1))
    )
    transform = spec.build(CANVAS)
    assert (transform.image_size, transform.canvas_size) == (4, 16)
    assert [step.canvas_size for step in transform.transforms] == [8, 16, 16]
    images = torch.rand(2, 3, 4, 4)
    fully_connected = FullyConnectedSpec(image_size=4).build(CANVAS.model_copy(update={"size": 8}))
    expected = WatermarkSpec(width=1).build(CANVAS)(PaddingSpec(image_size=8).build(CANVAS)(fully_connected(images)))
    assert torch.equal(transform(images), expected)


def test_parses_by_kind_and_refuses_sequences_in_sequences():
    parsed = SequenceSpec.model_validate({"transforms": [{"kind": "fully_connected"}, {"kind": "padding"}]})
    assert parsed.transforms == (FullyConnectedSpec(), PaddingSpec())
    with pytest.raises(ValidationError, match="sequence"):
        SequenceSpec.model_validate({"transforms": [{"kind": "sequence"}]})
    with pytest.raises(ValidationError, match="at least 1 item"):
        SequenceSpec.model_validate({"transforms": []})


def test_names_the_step_that_does_not_fit():
    with pytest.raises(SpecError, match="image_size 12 is more than the canvas of 8"):
        SequenceSpec(transforms=(FullyConnectedSpec(image_size=12), PaddingSpec(image_size=8))).build(CANVAS)

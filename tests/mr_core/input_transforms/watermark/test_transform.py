import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.watermark.spec import WatermarkSpec

STD = (0.2, 0.3, 0.4)


def _canvas(size: int) -> Preprocessing:
    return Preprocessing(size=size, mean=(0.5, 0.4, 0.3), std=STD)


def test_parameters_are_those_of_the_pattern_alone():
    assert WatermarkSpec().build(_canvas(224)).delta.numel() == 150_528
    assert WatermarkSpec(width=30).build(_canvas(224)).delta.numel() == 69_840  # Bahng et al.


def test_starts_at_the_image_alone():
    images = torch.rand(2, 3, 10, 10)
    assert torch.equal(WatermarkSpec(width=2).build(_canvas(10))(images), images)


@pytest.mark.parametrize("space", ["normalised", "pixel"])
def test_adds_the_pattern_in_its_space(space: str):
    transform = WatermarkSpec(width=2, space=space).build(_canvas(8))
    with torch.no_grad():
        transform.delta.copy_(torch.arange(len(transform.delta), dtype=torch.float32) / 100)
    images = torch.rand(2, 3, 8, 8)
    canvases = transform(images).detach()
    mean, std = torch.tensor((0.5, 0.4, 0.3)), torch.tensor(STD)
    used = 0
    for c in range(3):
        for y in range(8):
            for x in range(8):
                on_edge = min(y, x) < 2 or max(y, x) >= 6
                delta = float(transform.delta[used].detach()) if on_edge else 0.0
                used += on_edge
                if space == "pixel":
                    expected = images[:, c, y, x] + delta
                    torch.testing.assert_close(canvases[:, c, y, x], expected)
                else:  # as the published code: after the image was normalised
                    expected = (images[:, c, y, x] - mean[c]) / std[c] + delta
                    torch.testing.assert_close((canvases[:, c, y, x] - mean[c]) / std[c], expected)
    assert used == len(transform.delta)


def test_refuses_an_edge_wider_than_the_canvas():
    with pytest.raises(SpecError, match=r"a width of 6 from each edge .* at most 5"):
        WatermarkSpec(width=6).build(_canvas(10))

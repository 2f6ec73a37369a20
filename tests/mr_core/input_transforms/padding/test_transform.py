import math

import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.padding.spec import PaddingSpec


def _canvas(size: int) -> Preprocessing:
    return Preprocessing(size=size, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(("canvas", "image"), [(11, 8), (8, 3), (10, 9), (9, 1)])
def test_is_the_papers_formula(canvas: int, image: int):
    """u = pad(x) + sigmoid(delta) M with l = (S - k + 1) // 2 and r = (S - k) // 2, entry by entry."""
    transform = PaddingSpec(image_size=image).build(_canvas(canvas))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        transform.delta.copy_(torch.randn(transform.delta.shape, generator=generator))
    images = torch.rand(2, 3, image, image, generator=generator)
    found = transform(images)
    start = (canvas - image + 1) // 2
    deltas = iter(transform.delta.tolist())
    for channel in range(3):
        for row in range(canvas):
            for column in range(canvas):
                inside = start <= row < start + image and start <= column < start + image
                delta = None if inside else next(deltas)
                for n in range(2):
                    if delta is None:
                        expected = float(images[n, channel, row - start, column - start])
                    else:
                        expected = 1 / (1 + math.exp(-delta))
                    assert float(found[n, channel, row, column].detach()) == pytest.approx(expected, abs=1e-6)


def test_counts_only_the_frame():
    transform = PaddingSpec(image_size=128).build(_canvas(224))
    assert sum(parameter.numel() for parameter in transform.parameters()) == 3 * (224**2 - 128**2) == 101_376


def test_starts_as_a_grey_frame_of_four_sevenths():
    transform = PaddingSpec().build(_canvas(224))
    assert transform.image_size == 128
    assert torch.equal(transform(torch.zeros(1, 3, 128, 128))[0][transform.border], torch.full((101_376,), 0.5))


@pytest.mark.parametrize("image", [96, 97, 1000])
def test_refuses_an_image_that_leaves_no_frame(image: int):
    with pytest.raises(SpecError, match=rf"image_size {image} .* canvas .* 96 .* at most 95") as caught:
        PaddingSpec(image_size=image).build(_canvas(96))
    assert caught.value.param == "input_transform.image_size"

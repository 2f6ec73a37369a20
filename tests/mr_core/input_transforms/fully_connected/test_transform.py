import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec


def _canvas(size: int) -> Preprocessing:
    return Preprocessing(size=size, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_parameters_of_the_paper():
    with torch.device("meta"):
        transform = FullyConnectedSpec(image_size=32).build(_canvas(32))
    assert sum(parameter.numel() for parameter in transform.parameters()) == 9_440_256


@pytest.mark.parametrize("rank", [None, 3])
def test_starts_at_the_image_itself(rank: int | None):
    images = torch.rand(2, 3, 6, 6)
    transform = FullyConnectedSpec(image_size=6, rank=rank).build(_canvas(9))
    resized = torch.nn.functional.interpolate(images, size=9, mode="bilinear")
    torch.testing.assert_close(transform(images), resized)


@pytest.mark.parametrize("rank", [None, 3])
def test_is_an_affine_map_of_the_pixels(rank: int | None):
    transform = FullyConnectedSpec(image_size=4, rank=rank).build(_canvas(8)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    full = transform.weight if rank is None else torch.eye(48, dtype=torch.float64) + transform.up @ transform.down
    mapped = torch.stack([(full @ image.flatten() + transform.bias).view(3, 4, 4) for image in images])
    torch.testing.assert_close(transform(images), torch.nn.functional.interpolate(mapped, size=8, mode="bilinear"))


def test_refuses_what_cannot_be_held():
    with pytest.raises(SpecError, match=r"at 64 pixels has 151,007,232 parameters"):
        FullyConnectedSpec(image_size=64).build(_canvas(96))
    assert FullyConnectedSpec(image_size=64, rank=8).build(_canvas(96)).down.shape == (8, 12288)


def test_refuses_an_image_larger_than_the_canvas():
    with pytest.raises(SpecError, match="image_size 20 is more than the canvas of 10"):
        FullyConnectedSpec(image_size=20).build(_canvas(10))

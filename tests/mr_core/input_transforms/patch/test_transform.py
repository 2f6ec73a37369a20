import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.patch.spec import PatchSpec

CANVAS = Preprocessing(size=12, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def _moved(**fields):
    transform = PatchSpec(size=4, **fields).build(CANVAS)
    with torch.no_grad():
        transform.delta.normal_(generator=torch.Generator().manual_seed(0))
    return transform


def _images(n):
    return torch.randint(0, 256, (n, 3, 12, 12), generator=torch.Generator().manual_seed(1)) / 255


@pytest.mark.parametrize("place", ["corner", "random"])
@pytest.mark.parametrize("space", ["normalised", "pixel"])
def test_adds_the_square_at_its_place_and_nothing_elsewhere(place, space):
    transform, images = _moved(place=place, space=space), _images(5)
    added = (transform(images) - images).detach()
    std = torch.tensor(CANVAS.std).view(3, 1, 1) if space == "normalised" else 1
    for found, (y, x) in zip(added, transform.corners(images).tolist(), strict=True):
        expected = torch.zeros(3, 12, 12)
        expected[:, y : y + 4, x : x + 4] = transform.delta.detach() * std
        torch.testing.assert_close(found, expected)
    if place == "corner":
        assert not transform.corners(images).any()


def test_a_moving_square_goes_everywhere_and_stays_with_its_image():
    transform, images = _moved(place="random"), _images(600)
    corners = transform.corners(images)
    assert {tuple(pair) for pair in corners.tolist()} == {(y, x) for y in range(9) for x in range(9)}
    assert torch.equal(transform.corners(images[100:101]), corners[100:101])
    assert torch.equal(transform.double().corners(images.double()), corners)


def test_thirty_pixels_of_224_if_unset():
    assert PatchSpec().build(CANVAS.model_copy(update={"size": 224})).delta.numel() == 3 * 30**2


def test_refuses_a_square_larger_than_the_canvas():
    with pytest.raises(SpecError, match="a patch of 13 pixels does not fit the canvas of 12"):
        PatchSpec(size=13).build(CANVAS)

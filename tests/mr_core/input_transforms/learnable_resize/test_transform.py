import pytest
import torch
from torch.nn import functional

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.learnable_resize.spec import LearnableResizeSpec
from mr_core.input_transforms.padding.spec import PaddingSpec

CANVAS = Preprocessing(size=21, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.mark.parametrize("image_size", [9, 10])
def test_at_scale_one_it_is_the_frame_prompt(image_size):
    transform = LearnableResizeSpec(image_size=image_size).build(CANVAS)
    images = torch.rand(2, 3, image_size, image_size)
    torch.testing.assert_close(transform(images), PaddingSpec(image_size=image_size).build(CANVAS)(images))
    assert int(transform.mask().sum()) == 21**2 - image_size**2


@pytest.mark.parametrize(("scale", "side"), [(0.5, 4), (1.5, 13), (5.0, 21)])
def test_the_frame_begins_where_the_scaled_image_ends(scale, side):
    transform = LearnableResizeSpec(image_size=9, scale=scale).build(CANVAS)
    mask = transform.mask()
    assert int((~mask).sum()) == side**2
    assert not mask[10, 10]


def test_a_scaled_image_is_bilinear_about_the_middle():
    """At scale 2 the image of 8 pixels covers 16, as `interpolate` has it, but for the rim that blends into 0."""
    canvas = CANVAS.model_copy(update={"size": 20})
    transform = LearnableResizeSpec(image_size=8, scale=2.0).build(canvas)
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        transform.delta.fill_(-100)
    expected = functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(transform(images).detach()[:, :, 3:17, 3:17], expected[:, :, 1:15, 1:15])


def test_the_scale_has_the_gradient_of_a_small_difference():
    transform = LearnableResizeSpec(image_size=9, scale=1.13).build(CANVAS).double()
    images = torch.rand(1, 3, 9, 9, dtype=torch.float64)
    weights = torch.randn(1, 3, 21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((transform(images) * weights).sum(), transform.scale)
    step = 1e-6
    at = transform.scale.detach()
    sides = [(transform.warped(images, at + sign * step) * weights).sum() for sign in (1, -1)]
    assert float(found) == pytest.approx(float((sides[0] - sides[1]) / (2 * step)), rel=1e-4)


def test_the_scale_stays_in_its_range():
    transform = LearnableResizeSpec(image_size=9, scale=5).build(CANVAS)
    images = torch.rand(1, 3, 9, 9)
    before = transform(images)
    with torch.no_grad():
        transform.scale.fill_(50.0)
    assert torch.equal(transform(images), before)


def test_a_scale_that_left_its_range_in_training_is_put_back_and_goes_on_learning():
    transform = LearnableResizeSpec(image_size=9, scale=5).build(CANVAS)
    with torch.no_grad():
        transform.scale.fill_(5.3)
    transform.train()
    (transform(torch.rand(2, 3, 9, 9)) * torch.rand(3, 21, 21)).sum().backward()
    assert transform.scale.item() == 5
    assert transform.scale.grad != 0


def test_refuses_an_image_larger_than_the_canvas():
    with pytest.raises(SpecError, match="image_size 22 is more than the canvas of this backbone has: at most 21"):
        LearnableResizeSpec(image_size=22).build(CANVAS)

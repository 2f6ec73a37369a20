import pytest
import torch
from torch.nn import functional

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.sample_specific_mask.spec import SampleSpecificMaskSpec

CANVAS = Preprocessing(size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def _moved(canvas=CANVAS, **fields):
    transform = SampleSpecificMaskSpec(**fields).build(canvas)
    with torch.no_grad():
        transform.delta.normal_(generator=torch.Generator().manual_seed(0))
    return transform


@pytest.mark.parametrize(("layers", "n_parameters"), [(5, 26_499), (6, 102_339)])
def test_the_network_has_the_papers_parameters(layers, n_parameters):
    transform = SampleSpecificMaskSpec(layers=layers).build(CANVAS)
    assert sum(parameter.numel() for parameter in transform.network.parameters()) == n_parameters
    assert transform.delta.numel() == 3 * 16**2


def test_begins_at_the_image_where_only_the_pattern_has_a_gradient():
    transform, images = SampleSpecificMaskSpec().build(CANVAS), torch.rand(2, 3, 16, 16)
    canvases = transform(images)
    assert torch.equal(canvases, images)
    canvases.square().sum().backward()
    assert transform.delta.grad.any()
    assert not any(parameter.grad.any() for parameter in transform.network.parameters())


def test_the_mask_is_of_the_sample_and_constant_on_squares():
    transform, images = _moved(), torch.rand(2, 3, 16, 16)
    mask = transform.mask(images).detach()
    squares = mask.view(2, 3, 2, 8, 2, 8)
    assert torch.equal(squares, squares[:, :, :, :1, :, :1].expand_as(squares))
    assert not torch.equal(mask[0], mask[1])
    expected = images + torch.tensor(CANVAS.std).view(3, 1, 1) * transform.delta * mask
    torch.testing.assert_close(transform(images), expected)


def test_the_network_is_the_published_one_where_relu_comes_before_pooling():
    transform, images = _moved().double(), torch.rand(4, 3, 16, 16, dtype=torch.float64)
    transform.train()
    convolutions = [layer for layer in transform.network if isinstance(layer, torch.nn.Conv2d)]
    maps = (images - transform.mean) / transform.std
    for index, layer in enumerate(convolutions[:-1]):
        maps = functional.batch_norm(
            functional.conv2d(maps, layer.weight, layer.bias, padding=1), None, None, training=True
        )
        maps = functional.relu(maps)
        maps = functional.max_pool2d(maps, 2) if index < 3 else maps
    last = functional.conv2d(maps, convolutions[-1].weight, convolutions[-1].bias, padding=1)
    expected = last.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(transform.mask(images), expected)


@pytest.mark.parametrize("size", [8, 13, 21])
def test_a_side_that_eight_does_not_divide_is_enlarged_to(size):
    transform = _moved(CANVAS.model_copy(update={"size": size}))
    assert transform(torch.rand(2, 3, size, size)).shape == (2, 3, size, size)


@pytest.mark.parametrize(("size", "fields"), [(12, {}), (8, {}), (28, {"layers": 6, "pools": 4}), (24, {})])
def test_a_pass_of_one_image_in_training(size, fields):
    """Where the last maps are of one pixel there is nothing to take statistics of: batch norm stays as it is."""
    transform = _moved(CANVAS.model_copy(update={"size": size}), **fields)
    transform.train()
    canvases = transform(torch.rand(1, 3, size, size))
    canvases.square().sum().backward()
    assert canvases.isfinite().all()
    transform(torch.rand(2, 3, size, size))
    assert transform.network[1].training


def test_statistics_move_in_training_alone():
    transform, images = _moved(), torch.rand(4, 3, 16, 16)
    before = {name: tensor.clone() for name, tensor in transform.network.named_buffers()}
    transform(images)
    assert all(torch.equal(before[name], tensor) for name, tensor in transform.network.named_buffers())
    transform.train()
    transform(images)
    assert not all(torch.equal(before[name], tensor) for name, tensor in transform.network.named_buffers())
    assert set(before) < set(transform.state_dict(prefix="network.")) | set(transform.network.state_dict())


def test_refuses_a_canvas_that_poolings_use_up():
    with pytest.raises(SpecError, match="3 poolings leave nothing of a canvas of 7 pixels: it takes 8"):
        SampleSpecificMaskSpec().build(CANVAS.model_copy(update={"size": 7}))

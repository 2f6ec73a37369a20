"""What every input transform keeps to."""

import pytest
import torch
from pydantic import TypeAdapter

from mr_core.backbones.description import Preprocessing
from mr_core.input_transforms import INPUT_TRANSFORMS
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.registry import tagged_union

CANVAS = 20
PREPROCESSING = Preprocessing(size=CANVAS, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture(params=INPUT_TRANSFORMS.values(), ids=INPUT_TRANSFORMS.keys())
def spec(request: pytest.FixtureRequest) -> InputTransformSpec:
    return request.param()


def _moved(spec: InputTransformSpec):
    """A transform away from its special starting point."""
    transform = spec.build(PREPROCESSING)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return transform


def _images(transform, n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, transform.image_size, transform.image_size, generator=torch.Generator().manual_seed(0))


def test_gives_float32_canvases_of_the_asked_size(spec):
    transform = spec.build(PREPROCESSING)
    canvases = transform(_images(transform))
    assert canvases.shape == (3 * spec.views, 3, CANVAS, CANVAS)
    assert transform.views == spec.views
    assert canvases.dtype == torch.float32
    assert torch.isfinite(canvases).all()


def test_leaves_the_images_as_they_are(spec):
    transform = _moved(spec)
    images = _images(transform)
    before = images.clone()
    transform(images).mul_(2)
    if any(True for _ in transform.parameters()):
        assert torch.equal(images, before)


def test_gradients_reach_every_parameter_and_the_images(spec):
    transform = _moved(spec)
    images = _images(transform).requires_grad_()
    weights = torch.randn(3 * spec.views, 3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(2))
    (transform(images) * weights).sum().backward()
    assert images.grad is not None
    for name, parameter in transform.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_sample_does_not_depend_on_its_batch(spec):
    transform = _moved(spec)
    images = _images(transform)
    of_second = slice(spec.views, 2 * spec.views)
    torch.testing.assert_close(transform(images)[of_second], transform(images[1:2]))


def test_the_factored_jacobian_is_the_chain_rule(spec):
    transform = _moved(spec).double()
    images = _images(transform).double()
    rows = torch.randn(
        4, 3 * spec.views, 3, CANVAS, CANVAS, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    found = [transform.jacobian_factors(images, gradients) for gradients in rows]
    if found[0] is None:
        return  # the kernel's general path serves it
    parameters = dict(transform.named_parameters())
    assert [name for factor in found[0] for name in factor.parameters] == list(parameters)
    jacobians, products = [], 0.0
    for row in rows:
        values = transform.side_by_side((transform(images) * row).sum((1, 2, 3))[:, None]).sum(1)
        gradients = [
            torch.autograd.grad(value, parameters.values(), retain_graph=True) for value in values if parameters
        ]
        jacobians += [torch.cat([part.flatten() for part in gradient]) for gradient in gradients]
    for factors in zip(*found, strict=True):
        width = sum(parameters[name].numel() for name in factors[0].parameters)
        samples = torch.ones(3, 1).double() if factors[0].samples is None else factors[0].samples
        assert factors[0].rows.shape[1] * samples.shape[1] == width
        assert not factors[0].rows.requires_grad
        stacked = torch.cat([factor.rows for factor in factors])
        products = products + (stacked @ stacked.T) * (samples @ samples.T).repeat(4, 4)
    if parameters:
        expected = torch.stack(jacobians)
        torch.testing.assert_close(products, expected @ expected.T, rtol=1e-12, atol=1e-12)


def test_spec_and_state_survive_a_round_trip(spec):
    adapter = TypeAdapter(tagged_union(INPUT_TRANSFORMS))
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    transform, other = _moved(spec), spec.build(PREPROCESSING)
    other.load_state_dict(transform.state_dict())
    images = _images(transform)
    assert torch.equal(other(images), transform(images))


def test_starts_the_same_each_time(spec):
    first, second = spec.build(PREPROCESSING).state_dict(), spec.build(PREPROCESSING).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)

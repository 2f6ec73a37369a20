import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.triangular.spec import TriangularSpec

CANVAS = Preprocessing(size=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_what_lies_below_the_diagonal_is_the_prompts():
    transform = TriangularSpec(image_size=6).build(CANVAS)
    images = torch.rand(2, 3, 6, 6)
    canvases = transform(images).detach()
    assert transform.delta.numel() == 3 * (100 - 36 + 15)
    inner = canvases[:, :, 2:8, 2:8]
    for y in range(6):
        for x in range(6):
            expected = torch.full((2, 3), 0.5) if x < y else images[:, :, y, x]
            torch.testing.assert_close(inner[:, :, y, x], expected)
    canvases[:, :, 2:8, 2:8] = 0.5
    assert torch.equal(canvases, torch.full_like(canvases, 0.5))


def test_a_matrix_may_fill_the_canvas():
    assert TriangularSpec(image_size=10).build(CANVAS).delta.numel() == 3 * 45


def test_refuses_an_image_larger_than_the_canvas():
    with pytest.raises(SpecError, match="image_size 11 is more than the canvas of this backbone has: at most 10"):
        TriangularSpec(image_size=11).build(CANVAS)

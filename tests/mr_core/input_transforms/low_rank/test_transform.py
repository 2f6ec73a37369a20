import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.low_rank.spec import LowRankSpec

CANVAS = Preprocessing(size=12, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_begins_at_the_image_with_six_s_r_parameters():
    transform, images = LowRankSpec(rank=3).build(CANVAS), torch.rand(2, 3, 12, 12)
    assert torch.equal(transform(images), images)
    assert sum(parameter.numel() for parameter in transform.parameters()) == 6 * 12 * 3


@pytest.mark.parametrize("space", ["normalised", "pixel"])
def test_adds_a_pattern_of_that_rank_in_its_space(space):
    transform, images = LowRankSpec(rank=2, space=space).build(CANVAS), torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        transform.right.normal_(generator=torch.Generator().manual_seed(0))
    added = (transform(images) - images).detach()
    for colour, std in enumerate(CANVAS.std):
        factors = transform.left[colour], transform.right[colour]
        expected = torch.einsum("yr,xr->yx", *factors) * (std if space == "normalised" else 1)
        torch.testing.assert_close(added[0, colour], expected.detach(), rtol=1e-4, atol=1e-6)
        assert torch.linalg.matrix_rank(added[1, colour].double(), rtol=1e-5) == 2


def test_refuses_a_rank_above_the_side():
    with pytest.raises(SpecError, match="rank 13 is above the canvas' side of 12"):
        LowRankSpec(rank=13).build(CANVAS)

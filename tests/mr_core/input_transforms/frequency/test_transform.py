import numpy as np
import pytest
import torch
from scipy.fft import idctn

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.frequency.spec import FrequencySpec

CANVAS = Preprocessing(size=12, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_the_pattern_is_the_inverse_cosine_transform():
    transform, images = FrequencySpec(frequencies=4, space="pixel").build(CANVAS), torch.rand(1, 3, 12, 12)
    assert torch.equal(transform(images), images)
    drawn = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        transform.coefficients.copy_(drawn)
    padded = np.zeros((3, 12, 12))
    padded[:, :4, :4] = drawn.numpy()
    expected = idctn(padded, axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(transform.pattern().detach().numpy(), expected, atol=1e-6)


def test_in_normalised_space_the_pattern_has_the_deviation_of_the_colour():
    transform = FrequencySpec(frequencies=1).build(CANVAS)
    with torch.no_grad():
        transform.coefficients.fill_(12.0)  # the constant function of length 1 is 1 / 12 a pixel
    torch.testing.assert_close(transform.pattern().detach()[:, 0, 0], torch.tensor(CANVAS.std))


def test_an_eighth_of_the_side_if_unset():
    transform = FrequencySpec().build(CANVAS.model_copy(update={"size": 224}))
    assert transform.coefficients.shape == (3, 28, 28)


def test_refuses_more_frequencies_than_there_are():
    with pytest.raises(SpecError, match="13 frequencies along an axis, but the canvas of 12 pixels has 12"):
        FrequencySpec(frequencies=13).build(CANVAS)

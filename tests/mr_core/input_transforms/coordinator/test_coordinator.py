"""A prompt for each sample, drawn of a frozen encoder's features."""

import pytest
import torch

from mr_core.backbones.description import Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.errors import AdapterError
from mr_core.input_transforms.coordinator.spec import CoordinatorSpec
from mr_core.input_transforms.coordinator.transform import PromptDecoder, encoded

CANVAS = Preprocessing(size=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def _images(n=4):
    return torch.rand(n, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def test_the_papers_decoder_has_the_papers_parameters():
    decoder = PromptDecoder(n_features=768, canvas_size=224)
    assert decoder.trigger.shape == (800,)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 9920
    assert decoder.eval()(torch.zeros(2, 768)).shape == (2, 3, 224, 224)


def test_the_prompt_is_added_to_normalised_images_and_clipped():
    transform = CoordinatorSpec(strength=0.4).build(CANVAS)
    images = _images()
    prompts = transform.decoder(encoded(images))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CANVAS.mean, CANVAS.std))
    normalised = (images - mean) / std + 0.4 * prompts
    expected = torch.minimum(torch.maximum(normalised, -mean / std), (1 - mean) / std)
    torch.testing.assert_close(transform(images), expected * std + mean)
    assert not torch.allclose(prompts[0], prompts[1])


def test_the_encoder_is_frozen_and_not_part_of_the_adapter():
    transform = CoordinatorSpec().build(CANVAS)
    assert {name.split(".")[0] for name in transform.state_dict()} == {"decoder", "encoder_sha256"}
    images = _images().requires_grad_()
    assert not encoded(images).requires_grad
    mini_clip = load_backbone("builtin/mini-clip")
    features = encoded(images)
    shown = torch.nn.functional.interpolate(images.detach(), size=(96, 96), mode="bilinear", antialias=True)
    cosine = torch.nn.functional.cosine_similarity(features, mini_clip(shown, "image_text"))
    torch.testing.assert_close(cosine, torch.ones(4))
    torch.testing.assert_close(features.square().mean(1), torch.ones(4))


def test_a_sample_does_not_feel_its_batch_once_trained():
    transform = CoordinatorSpec().build(CANVAS)
    transform.train()
    for _ in range(3):
        transform(_images())
    transform.eval()
    torch.testing.assert_close(transform(_images())[1:2], transform(_images()[1:2]))


def test_refuses_the_state_of_another_encoder():
    transform = CoordinatorSpec().build(CANVAS)
    state = transform.state_dict()
    transform.load_state_dict(state)
    state["encoder_sha256"] = state["encoder_sha256"].flip(0)
    with pytest.raises(AdapterError, match="was trained on an encoder of sha256"):
        transform.load_state_dict(state)

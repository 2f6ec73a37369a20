import torch

from mr_core.backbones.calibration import calibrate_batch_norm, has_batch_norm, restore_batch_norm
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone


def test_takes_the_statistics_of_the_canvases(tiny_backbone):
    canvases = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    calibrate_batch_norm(tiny_backbone, canvases)
    maps = tiny_backbone.source.first((canvases - tiny_backbone.mean) / tiny_backbone.std)
    norm = tiny_backbone.source.norm
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)))
    assert not norm.training


def test_a_random_network_then_tells_images_apart():
    backbone = load_backbone(f"random:{MINI_CLIP}")
    assert has_batch_norm(backbone)
    generator = torch.Generator().manual_seed(0)
    canvases = torch.rand(24, 3, 1, 1, generator=generator) * torch.rand(24, 3, 96, 96, generator=generator)
    answers = backbone(canvases, "source_logits").argmax(1).unique()
    calibrate_batch_norm(backbone, canvases)
    assert len(backbone(canvases, "source_logits").argmax(1).unique()) > max(3, len(answers))


def test_statistics_survive_a_round_trip():
    backbone, other = load_backbone(f"random:{MINI_CLIP}"), load_backbone(f"random:{MINI_CLIP}")
    canvases = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    calibrate_batch_norm(backbone, canvases)
    restore_batch_norm(other, backbone.calibrated_statistics)
    assert torch.equal(backbone(canvases), other(canvases))

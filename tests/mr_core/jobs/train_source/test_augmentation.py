import math

import numpy as np
import torch

from mr_core.jobs.train_source.augmentation import AugmentedImages, turned

CPU = torch.device("cpu")


def test_a_flip_alone_mirrors_and_nothing_changes_nothing():
    images = torch.rand(2, 3, 6, 6)
    flips, angles = np.array([True, False]), np.zeros(2)
    result = turned(images, flips=flips, angles=angles)
    torch.testing.assert_close(result[0], images[0].flip(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result[1], images[1], rtol=1e-5, atol=1e-5)


def test_a_quarter_turn_is_one():
    images = torch.rand(1, 3, 6, 6)
    result = turned(images, flips=np.array([False]), angles=np.array([math.pi / 2]))
    turns = [images.rot90(k, (2, 3)) for k in (1, 3)]
    assert any(torch.allclose(result, turn, atol=1e-4) for turn in turns)


def test_depends_on_seed_epoch_and_place_alone(tiny_images):
    images = AugmentedImages(tiny_images(20))
    assert torch.equal(images.batch(slice(None), CPU), images.images.batch(slice(None), CPU))
    third = images.at_epoch(3, seed=1)
    whole = third.batch(slice(None), CPU)
    places = np.array([7, 2, 11])
    torch.testing.assert_close(third.batch(places, CPU), whole[places])
    torch.testing.assert_close(images.at_epoch(3, seed=1).batch(places, CPU), whole[places])
    assert not torch.allclose(images.at_epoch(4, seed=1).batch(slice(None), CPU), whole)
    assert not torch.allclose(images.at_epoch(3, seed=2).batch(slice(None), CPU), whole)
    assert 0.2 < third.flips.mean() < 0.8
    assert np.abs(third.angles).max() <= math.radians(15)
    assert np.array_equal(third.labels, images.images.labels)

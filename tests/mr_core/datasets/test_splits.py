import numpy as np
import pytest

from mr_core.datasets.splits import stratified_sample, stratified_split
from mr_core.errors import DatasetError

LABELS = np.array([0] * 10 + [1] * 5 + [2] * 2 + [3])


def test_split_takes_the_fraction_of_each_class():
    kept, held_out = stratified_split(LABELS, 0.2, 0)
    assert np.bincount(LABELS[held_out], minlength=4).tolist() == [2, 1, 1, 0]
    assert sorted([*kept, *held_out]) == list(range(LABELS.size))


def test_split_leaves_both_sides_one_of_a_class_of_two():
    kept, held_out = stratified_split([0, 0, 1, 1], 0.99, 0)
    assert kept.size == held_out.size == 2


def test_split_is_ascending_and_the_same_for_the_same_seed():
    first, second, other = (stratified_split(LABELS, 0.4, seed) for seed in (7, 7, 8))
    assert all((side == np.sort(side)).all() for side in first)
    assert first[1].tolist() == second[1].tolist() != other[1].tolist()


def test_split_does_not_change_from_version_to_version():
    assert stratified_split([0, 1] * 10, 0.2, 0)[1].tolist() == [5, 8, 12, 19]


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_split_refuses_other_fractions(fraction):
    with pytest.raises(ValueError, match="fraction"):
        stratified_split(LABELS, fraction, 0)


def test_sample_is_as_equal_per_class_as_the_counts_allow():
    for n in range(4, LABELS.size):
        counts = np.bincount(LABELS[stratified_sample(LABELS, n, 3)], minlength=4)
        assert counts.sum() == n
        available = np.bincount(LABELS)
        assert all(counts[c] == available[c] or counts[c] >= counts.max() - 1 for c in range(4)), n


def test_sample_has_no_repeats_and_is_ascending():
    drawn = stratified_sample(LABELS, 9, 1)
    assert (np.diff(drawn) > 0).all()


def test_sample_of_more_than_there_are_is_all():
    assert stratified_sample(LABELS, 100, 0).tolist() == list(range(LABELS.size))


def test_sample_refuses_fewer_than_classes():
    with pytest.raises(DatasetError, match="3 samples cannot cover 4 classes"):
        stratified_sample(LABELS, 3, 0)

import numpy as np
import pytest
import torch

from mr_core.errors import OneClass, ScoreError
from mr_core.scores.arrays import (
    as_features,
    as_kernel,
    as_labelled_kernel,
    as_labels,
    as_probabilities,
    class_indices,
    one_hot,
)


class OnDevice:
    """What numpy sees of a tensor on an accelerator: it must be fetched first."""

    def __init__(self, tensor):
        self.tensor = tensor

    def detach(self):
        return self

    def cpu(self):
        return self.tensor.detach()

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_arrays_and_tensors_of_any_type_become_float64():
    expected = np.array([[0.5, 1.0], [2.0, -4.0]])
    tensor = torch.from_numpy(expected)
    for value in [
        expected,
        expected.astype(np.float16),
        expected.tolist(),
        tensor.requires_grad_(),
        tensor.bfloat16(),
        tensor.half().T.contiguous().T,
        OnDevice(tensor),
    ]:
        found = as_features(value)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)


def test_integers_are_numbers():
    np.testing.assert_array_equal(as_features(torch.tensor([[1, 2]])), [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3), r"features has the shape \(3,\); samples x dimensions, none of them 0, was expected"),
        (np.zeros((0, 3)), r"the shape \(0, 3\)"),
        (np.array([[1.0, np.nan]]), r"features\[0, 1\] is nan; finite numbers"),
        (np.array([[1.0], [-np.inf]]), r"features\[1, 0\] is -inf"),
        (np.array([[1e71]]), r"features\[0, 0\] is 1e\+71; finite numbers of at most 1e\+70"),
        (np.array([["a"]]), "features is of type <U1; real numbers"),
        (torch.ones(1, 1, dtype=torch.complex64), "features is of type complex64"),
        (torch.eye(2).to_sparse(), "features cannot be read as an array"),
        ([[1.0], [2.0, 3.0]], "features cannot be read as an array"),
    ],
)
def test_refused_numbers_say_what_was_found_and_expected(value, message):
    with pytest.raises(ScoreError, match=message):
        as_features(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.6]], "of sample 1 sum to 1.1; 1 was expected"),
        ([[0.5, 0.5], [1.5, -0.5]], "of sample 1 has a negative entry"),
        ([[0.0, 0.0]], "of sample 0 sum to 0"),
        ([[3.0, 4.0]], "sum to 7"),
    ],
)
def test_refuses_what_is_no_distribution(value, message):
    with pytest.raises(ScoreError, match=message):
        as_probabilities(value)


def test_bears_probabilities_rounded_to_float16():
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    assert as_probabilities(logits.softmax(1).half()).shape == (50, 1000)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([0, 1]), r"labels have the shape \(2,\); one for each of 3 samples"),
        (np.array([[0], [1], [2]]), r"the shape \(3, 1\)"),
        (np.array([0.0, 1.0, 2.0]), "labels are of type float64; class numbers, integers"),
        (np.array([True, False, True]), "labels are of type bool"),
        (np.array([0, -1, 1]), r"labels\[1\] is -1; class numbers from 0"),
    ],
)
def test_refused_labels_say_what_was_found_and_expected(value, message):
    with pytest.raises(ScoreError, match=message):
        as_labels(value, 3)


def test_one_class_is_an_error_of_its_own():
    with pytest.raises(OneClass, match="all 3 labels are 4; at least two classes"):
        as_labels(np.array([4, 4, 4]), 3)


def test_classes_without_samples_do_not_count():
    indices = class_indices(as_labels(torch.tensor([5, 2, 5, 9], dtype=torch.uint8)))
    assert indices.tolist() == [1, 0, 1, 2]
    assert one_hot(indices).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_kernel_is_symmetric_but_for_rounding():
    kernel = np.array([[2.0, 1.0], [1.0 + 1e-6, 2.0]])
    assert np.array_equal(as_kernel(kernel), as_kernel(kernel).T)
    with pytest.raises(ScoreError, match="differs from its transpose by 1; a symmetric"):
        as_kernel(np.array([[2.0, 1.0], [0.0, 2.0]]))
    with pytest.raises(ScoreError, match=r"kernel has the shape \(2, 3\); as many columns"):
        as_kernel(np.zeros((2, 3)))


def test_a_labelled_kernel_is_of_samples_or_of_samples_and_classes():
    labels = np.array([0, 2, 2])
    assert as_labelled_kernel(np.eye(3), labels).columns.shape == (3, 2)
    full = as_labelled_kernel(np.eye(12), labels)  # four outputs, of which two have samples
    assert full.columns[:, 0].tolist() == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    for rows in (2, 4, 6):  # six rows: two outputs, while there is a class 2
        with pytest.raises(ScoreError, match=f"a kernel of {rows} rows belongs neither to 3 samples"):
            as_labelled_kernel(np.eye(rows), labels)

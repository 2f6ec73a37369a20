"""What scores read: numpy arrays or torch tensors on any device, checked and made float64. Torch is not imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mr_core.errors import OneClass, ScoreError

if TYPE_CHECKING:
    from torch import Tensor

    Array = NDArray[Any] | Tensor
else:
    Array = Any  # a union with Tensor would import torch; shapes are checked here, with messages for people

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

LARGEST = 1e70  # fourth powers, which scores sum, stay far below the largest float64
SUM_TOLERANCE = 1e-3  # of a row of probabilities; a float16 softmax over 1000 classes is off by 2e-4
ASYMMETRY = 1e-5  # of a kernel, relative to its largest entry: what float32 leaves


def as_numbers(value: Array, name: str, *, axes: tuple[str, ...]) -> Matrix:
    """Real, finite numbers with one axis for each name in `axes`, none of them empty; ScoreError otherwise.

    A tensor is detached and moved to the CPU. float64 numpy arrays and CPU tensors are not copied: do not write.
    """
    array = _as_numpy(value, name)
    if array.dtype.kind not in "biuf":
        raise ScoreError(f"{name} is of type {array.dtype}; real numbers were expected")
    if array.ndim != len(axes) or array.size == 0:
        expected = " x ".join(axes)
        raise ScoreError(f"{name} has the shape {array.shape}; {expected}, none of them 0, was expected")
    numbers = array.astype(np.float64, copy=False)
    lowest, highest = float(numbers.min()), float(numbers.max())
    if not (lowest >= -LARGEST and highest <= LARGEST):  # also where one is nan
        place = np.argwhere(~(np.abs(numbers) <= LARGEST))[0]
        found = f"{name}[{', '.join(map(str, place))}] is {numbers[tuple(place)]}"
        raise ScoreError(f"{found}; finite numbers of at most {LARGEST:g} in size were expected")
    return numbers


def as_features(value: Array, name: str = "features") -> Matrix:
    """`(n, d)` numbers, a row for each sample."""
    return as_numbers(value, name, axes=("samples", "dimensions"))


def as_probabilities(value: Array, name: str = "source_probabilities") -> Matrix:
    """`(n, z)` numbers whose rows are distributions; ScoreError where one is negative or a row does not sum to 1."""
    probabilities = as_numbers(value, name, axes=("samples", "source classes"))
    if float(probabilities.min()) < 0:
        sample = int((probabilities < 0).any(1).argmax())
        raise ScoreError(f"{name} of sample {sample} has a negative entry; probabilities were expected")
    sums = probabilities.sum(1)
    sample = int(np.abs(sums - 1).argmax())
    if abs(sums[sample] - 1) > SUM_TOLERANCE:
        raise ScoreError(f"{name} of sample {sample} sum to {sums[sample]:.6g}; 1 was expected")
    return probabilities


def as_kernel(value: Array, name: str = "kernel") -> Matrix:
    """A square matrix, made exactly symmetric; ScoreError where it is not so but for rounding."""
    kernel = as_square(value, name)
    gap, size = float(np.abs(kernel - kernel.T).max()), float(np.abs(kernel).max())
    if gap > ASYMMETRY * size:
        raise ScoreError(f"{name} differs from its transpose by {gap:.3g}; a symmetric matrix was expected")
    return kernel if gap == 0 else (kernel + kernel.T) / 2


def as_square(value: Array, name: str = "kernel") -> Matrix:
    """A square matrix."""
    matrix = as_numbers(value, name, axes=("rows", "as many columns"))
    if matrix.shape[0] != matrix.shape[1]:
        raise ScoreError(f"{name} has the shape {matrix.shape}; as many columns as rows were expected")
    return matrix


def as_labels(value: Array, n: int | None = None, name: str = "labels") -> Labels:
    """`(n,)` class numbers from 0, of any n if None; ScoreError where they are not, OneClass where all are equal."""
    labels = _as_numpy(value, name)
    n = labels.size if n is None else n
    if labels.dtype.kind not in "iu":
        raise ScoreError(f"{name} are of type {labels.dtype}; class numbers, integers, were expected")
    if labels.shape != (n,) or n == 0:
        raise ScoreError(f"{name} have the shape {labels.shape}; one for each of {n or 'the'} samples was expected")
    lowest, highest = labels.min(), labels.max()
    if lowest < 0:
        raise ScoreError(f"{name}[{labels.argmin()}] is {lowest}; class numbers from 0 were expected")
    if lowest == highest:
        raise OneClass(f"all {n} {name} are {lowest}; at least two classes were expected")
    return labels.astype(np.int64)


@dataclass(frozen=True)
class LabelledKernel:
    """A kernel, (n, n) or the full (n c, n c), with the one-hot labels (n, c) of its samples and their classes (n,)."""

    kernel: Matrix
    targets: Matrix
    classes: Labels

    @property
    def n_samples(self) -> int:
        return len(self.classes)

    @property
    def columns(self) -> Matrix:
        """The labels as the kernel takes them: a column for each class, or all flattened, sample-major."""
        return self.targets if len(self.kernel) == self.n_samples else self.targets.reshape(-1, 1)


def as_labelled_kernel(kernel: Array, labels: Array) -> LabelledKernel:
    """A symmetric kernel and labels; ScoreError where its rows are neither samples nor samples x classes."""
    matrix, classes = as_kernel(kernel), as_labels(labels)
    n_outputs, rest = divmod(len(matrix), len(classes))
    if n_outputs == 1 and rest == 0:
        classes = class_indices(classes)
        return LabelledKernel(matrix, one_hot(classes), classes)
    if rest or n_outputs <= classes.max():
        raise ScoreError(
            f"a kernel of {len(matrix)} rows belongs neither to {len(classes)} samples nor to {len(classes)} samples x "
            f"the classes 0 to {classes.max()} or more"
        )
    return LabelledKernel(matrix, one_hot(classes, n_outputs), classes)


def class_indices(labels: Labels) -> Labels:
    """Labels numbered anew without gaps: classes without samples do not count."""
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def one_hot(indices: Labels, n_classes: int | None = None) -> Matrix:
    """`(n, c)`, 1 at each sample's class and 0 elsewhere."""
    return np.eye(int(indices.max()) + 1 if n_classes is None else n_classes)[indices]


def _as_numpy(value: Array, name: str) -> NDArray[Any]:
    try:
        if hasattr(value, "detach"):  # a tensor, whose device and bfloat16 numpy does not know
            tensor = value.detach().cpu()
            value = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScoreError(f"{name} cannot be read as an array: {error}") from error

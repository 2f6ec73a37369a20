"""Which samples are held out and which are drawn: by class, and the same for the same seed everywhere."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mr_core.errors import DatasetError

Indices = NDArray[np.int64]


def stratified_split(labels: ArrayLike, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Indices kept and indices held out, both ascending; together they are all of `labels` `(n,)`, once each.

    Each class gives `round(fraction * count)` samples, but at least one to both sides where it has two or
    more; a class of one stays with the kept. Classes are taken in ascending order of their label from one
    generator (PCG64), so the result depends on the labels, the fraction and the seed alone.
    ValueError unless 0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}, expected between 0 and 1")
    values = _flat(labels)
    generator = np.random.Generator(np.random.PCG64(seed))
    is_held_out = np.zeros(values.size, dtype=np.bool_)
    for label in np.unique(values):
        members = np.flatnonzero(values == label)
        if members.size >= 2:
            n_held_out = min(max(1, round(fraction * members.size)), members.size - 1)
            is_held_out[generator.permutation(members)[:n_held_out]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def stratified_sample(labels: ArrayLike, n: int, seed: int) -> Indices:
    """`n` indices into `labels` `(m,)`, ascending, without repeats; all of them where `n >= m`.

    As equal per class as the counts allow: no class has two fewer than another unless it is used up.
    Where `n` does not divide evenly, the classes that get one more are drawn too.
    DatasetError where `n` is below the number of classes.
    """
    values = _flat(labels)
    classes, counts = np.unique(values, return_counts=True)
    if n < classes.size:
        raise DatasetError(f"{n} samples cannot cover {classes.size} classes: at least one of each is needed")
    if n >= values.size:
        return np.arange(values.size, dtype=np.int64)
    generator = np.random.Generator(np.random.PCG64(seed))
    quotas = _equal_quotas(counts, n, generator)
    drawn = [
        generator.permutation(np.flatnonzero(values == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _equal_quotas(counts: NDArray[np.intp], n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How many of each class, summing to `n`: filled up evenly, the remainder drawn among those not used up."""
    quotas = np.zeros(counts.size, dtype=np.int64)
    while (missing := n - int(quotas.sum())) > 0:
        available = np.flatnonzero(quotas < counts)
        if missing < available.size:
            quotas[generator.permutation(available)[:missing]] += 1
        else:
            quotas[available] += np.minimum(counts[available] - quotas[available], missing // available.size)
    return quotas


def _flat(labels: ArrayLike) -> Indices:
    values = np.asarray(labels, dtype=np.int64)
    if values.ndim != 1:
        raise ValueError(f"labels have shape {values.shape}, expected one dimension")
    return values

"""Which trials go on: successive halving without waiting for others."""

from collections.abc import Sequence


def rungs(*, least: int, most: int, reduction: int) -> list[int]:
    """Epochs after which a trial is judged, ascending: `most`, each a `reduction`-th of the next, down to `least`."""
    found = [most]
    while (below := round(found[0] / reduction)) >= least and below < found[0]:
        found.insert(0, below)
    return found


def survives(place: int, values: Sequence[float], *, reduction: int) -> bool:
    """Whether the trial at `place` goes on, of all those that have come to its rung so far, in their order.

    Asynchronous successive halving (Li et al., 2020, arXiv:1810.05934) as Optuna decides it: at once and for good, the
    best `n / reduction` of the n values go on, and where that is none the best. Of equals the earlier.
    """
    ahead = sum(
        other > values[place] or (other == values[place] and earlier < place) for earlier, other in enumerate(values)
    )
    return ahead < max(1, len(values) // reduction)

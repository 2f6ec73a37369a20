"""The adapter's parameters as one vector, for trainers that move along random directions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.parameters import put_back


def generator_of(seed: int, step: int) -> torch.Generator:
    """A generator on the CPU that is a function of both alone, so a step draws the same on every device and attempt."""
    (state,) = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) % 2**63)


@contextmanager
def moved(parameters: Sequence[nn.Parameter], direction: Float[Tensor, " d"], *, by: float) -> Iterator[None]:
    """The parameters are inside `by` times the direction further; afterwards what they were before, to the bit."""
    with put_back(parameters):
        with torch.no_grad():
            for parameter, part in zip(parameters, split(parameters, direction), strict=True):
                parameter.add_(part, alpha=by)
        yield


def leave_gradient(parameters: Sequence[nn.Parameter], gradient: Float[Tensor, " d"]) -> None:
    """Make the vector the parameters' gradient."""
    for parameter, part in zip(parameters, split(parameters, gradient), strict=True):
        parameter.grad = part.clone()


def split(parameters: Sequence[nn.Parameter], vector: Float[Tensor, " d"]) -> list[Tensor]:
    """The vector's parts in the parameters' shapes, on their device."""
    parts = vector.split_with_sizes([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter).to(parameter) for parameter, part in zip(parameters, parts, strict=True)]


def dimension(parameters: Sequence[nn.Parameter]) -> int:
    """How many numbers the parameters are."""
    return sum(parameter.numel() for parameter in parameters)

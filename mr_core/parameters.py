"""Parameters that are moved for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def put_back(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """The parameters are afterwards what they were before, to the bit."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, tensor in zip(parameters, kept, strict=True):
                parameter.copy_(tensor)

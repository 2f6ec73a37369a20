"""A source head that learns to answer as a black box does."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.jobs.prime.spec import Priming


def fit_head(
    features: Float[Tensor, "n d"],
    probabilities: Float[Tensor, "n k"],
    priming: Priming,
    *,
    seed: int,
    beat: Callable[[], None],
) -> nn.Linear:
    """The linear layer whose cross entropy to the probabilities is low (arXiv:2604.01474), begun at zero.

    The order of epoch e is a function of seed and e alone. `beat` is called after each epoch.
    """
    head = nn.Linear(features.shape[1], probabilities.shape[1])
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=priming.learning_rate)
    steps = -(-len(features) // priming.batch_size) * priming.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(priming.epochs):
            order = torch.randperm(len(features), generator=generator)
            for chosen in torch.split(order, priming.batch_size):
                optimizer.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(head(features[chosen]), probabilities[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            beat()
    return head.requires_grad_(False)

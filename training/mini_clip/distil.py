"""First stage: the image tower learns at 96 px what the teacher says of the same view at 224 px."""

import math
import random
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from training.mini_clip.images import CANVAS, normalised
from training.mini_clip.views import Views

BATCH = 64
SHIFT = 4
BLUR_SHARE = 0.35
TEMPERATURE = 2.0
WARM_UP = 0.05
MAX_GRADIENT = 5.0


def distil(
    trunk: Any, views: Views, *, epochs: int, learning_rate: float, seed: int, log: Callable[[dict[str, Any]], None]
) -> None:
    """Train the folded `trunk` in place; the learning rate warms up, then falls to zero along a cosine.

    Loss: 1 - cosine and relative squared error of the embeddings, and the divergence of the softened labels.
    """
    trunk.requires_grad_(True)
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=learning_rate, weight_decay=1e-4)
    batches = math.ceil(len(views.labels) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * batches, pct_start=WARM_UP, cycle_momentum=False
    )
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    start = time.monotonic()
    for epoch in range(epochs):
        totals: dict[str, float] = {}
        for batch in torch.split(torch.randperm(len(views.labels), generator=generator), BATCH):
            images = augmented(normalised(views.images[batch].float() / 255), rng)
            losses = compare(trunk, images.contiguous(memory_format=torch.channels_last), views, batch)
            optimizer.zero_grad()
            total: Tensor = sum(losses.values(), torch.zeros(()))
            total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trunk.parameters(), MAX_GRADIENT)
            optimizer.step()
            schedule.step()
            totals = {name: totals.get(name, 0.0) + float(loss.detach()) for name, loss in losses.items()}
        means = {name: round(total / batches, 4) for name, total in totals.items()}
        log({"stage": "distil", "epoch": epoch, "seconds": round(time.monotonic() - start), **means})
    trunk.requires_grad_(False)


def compare(trunk: Any, images: Tensor, views: Views, batch: Tensor) -> dict[str, Tensor]:
    """The three losses of one batch."""
    embeddings = trunk.forward_head(trunk.forward_features(images), pre_logits=True)
    targets = views.embeddings[batch]
    labels = functional.log_softmax(trunk.classifier(embeddings) / TEMPERATURE, dim=1)
    soft = functional.softmax(views.logits[batch] / TEMPERATURE, dim=1)
    return {
        "cosine": (1 - functional.cosine_similarity(embeddings, targets)).mean(),
        "relative_error": ((embeddings - targets).square().sum(1) / targets.square().sum(1)).mean(),
        "divergence": functional.kl_div(labels, soft, reduction="batchmean"),
    }


def augmented(images: Float[Tensor, "n 3 96 96"], rng: random.Random) -> Float[Tensor, "n 3 96 96"]:
    """One flip, shift and (for some batches) loss of resolution for the whole batch; the teacher saw none of them."""
    if rng.random() < 0.5:
        images = images.flip(3)
    if rng.random() < BLUR_SHARE:
        small = functional.interpolate(images, size=rng.randint(28, 72), mode="bilinear", antialias=True)
        images = functional.interpolate(small, size=CANVAS, mode="bicubic")
    padded = functional.pad(images, [SHIFT] * 4, mode="reflect")
    x, y = rng.randint(0, 2 * SHIFT), rng.randint(0, 2 * SHIFT)
    return padded[:, :, y : y + CANVAS, x : x + CANVAS]

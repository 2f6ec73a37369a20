"""Second stage: projection and text tower, on embeddings of the distilled image tower (which stays as it is)."""

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.builtin.mini_clip.model import JOINT_DIM, MiniClip
from training.mini_clip.images import normalised
from training.mini_clip.views import Views
from training.mini_clip.vocabulary import TEMPLATES, class_names, definitions, groups, lemmas

BATCH = 128
CLASSES_PER_STEP = 400
MAX_LOG_SCALE = 4.6052  # 100, as in CLIP
LOG_EVERY = 100


@torch.no_grad()
def embed_views(model: MiniClip, views: Views) -> Float[Tensor, "2 n 1280"]:
    """Embeddings of each view as it is and mirrored."""
    passes = []
    for mirrored in (False, True):
        images = views.images.flip(3) if mirrored else views.images
        batches = [normalised(batch.float() / 255) for batch in torch.split(images, BATCH)]
        passes.append(
            torch.cat([model.embed(batch.contiguous(memory_format=torch.channels_last)) for batch in batches])
        )
    return torch.stack(passes)


def train_joint(
    model: MiniClip,
    views: Views,
    embeddings: Float[Tensor, "2 n 1280"],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    log: Callable[[dict[str, Any]], None],
) -> None:
    """Fit the projection, the text tower and the logit scale; only text and pooled features are touched.

    Losses: cross entropy with the teacher's labels over the 1000 class-name texts and over the broad names;
    with Caltech names; image against caption within a batch of scenes and chest pictures (both directions);
    definitions against class names; class-name texts regressed onto the projected rows of the label head.
    """
    start_projection(model, embeddings)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    log_scale = nn.Parameter(model.log_logit_scale.clone())
    trained = [*model.projection.parameters(), *model.text.parameters(), log_scale]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    labels, group_labels = teacher_labels(views)
    rows = model.trunk.classifier.weight - model.trunk.classifier.weight.mean(0)
    is_photo = views.labels >= 0
    photos, others = is_photo.nonzero()[:, 0], (~is_photo).nonzero()[:, 0]
    start = time.monotonic()
    for step in range(steps):
        photo, other = draw(photos, generator), draw(others, generator)
        features = embeddings[rng.randrange(2)]
        places, other_places = (functional.normalize(model.project(features[part]), dim=1) for part in (photo, other))
        subset = torch.randperm(len(class_names()), generator=generator)[:CLASSES_PER_STEP]
        names = functional.normalize(model.encode_text(class_texts(subset.tolist(), rng)), dim=1)
        broad = functional.normalize(
            model.encode_text([rng.choice(TEMPLATES).format(name) for name in groups()]), dim=1
        )
        local = functional.normalize(
            model.encode_text([rng.choice(TEMPLATES).format(name) for name in views.caltech_names]), dim=1
        )
        captions = [views.captions[index] for index in other.tolist()]
        scale = log_scale.exp()
        losses = {
            "classes": functional.cross_entropy(scale * places @ names.T, labels[photo][:, subset]),
            "groups": functional.cross_entropy(scale * places @ broad.T, group_labels[photo]),
            "caltech": functional.cross_entropy(scale * places @ local.T, views.labels[photo]),
            "captions": contrast(
                scale * other_places @ functional.normalize(model.encode_text(captions), dim=1).T, captions
            ),
            "definitions": definition_loss(model, names, subset.tolist(), scale),
            "rows": (1 - functional.cosine_similarity(names, rows[subset] @ model.projection.weight.T)).mean(),
        }
        optimizer.zero_grad()
        total: Tensor = sum(losses.values(), torch.zeros(()))
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        log_scale.data.clamp_(max=MAX_LOG_SCALE)
        if step % LOG_EVERY == 0 or step == steps - 1:
            values = {name: round(float(loss.detach()), 4) for name, loss in losses.items()}
            seconds = round(time.monotonic() - start)
            log(
                {
                    "stage": "joint",
                    "step": step,
                    "seconds": seconds,
                    "logit_scale": round(float(scale.detach()), 2),
                    **values,
                }
            )
    model.log_logit_scale.copy_(log_scale.detach())


@torch.no_grad()
def start_projection(model: MiniClip, embeddings: Tensor) -> None:
    """Start from the directions in which the label head's rows differ, centred on the mean embedding."""
    rows = model.trunk.classifier.weight
    directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:JOINT_DIM]
    model.projection.weight.copy_(directions)
    model.projection.bias.copy_(-directions @ embeddings.mean((0, 1)))


def teacher_labels(views: Views) -> tuple[Float[Tensor, "n 1000"], Float[Tensor, "n groups"]]:
    """The teacher's probabilities, and the same summed over each broad name and normalised."""
    probabilities = functional.softmax(views.logits, dim=1)
    summed = torch.stack([probabilities[:, members].sum(1) for members in groups().values()], dim=1)
    return probabilities, summed / summed.sum(1, keepdim=True).clamp(min=1e-3)


def draw(indices: Tensor, generator: torch.Generator) -> Tensor:
    """A random batch of `indices`."""
    return indices[torch.randint(len(indices), (BATCH,), generator=generator)]


def class_texts(indices: list[int], rng: random.Random) -> list[str]:
    """A text for each of these source classes: mostly its usual name, at times another of its names."""
    chosen = [class_names()[index] if rng.random() < 0.7 else rng.choice(lemmas()[index]) for index in indices]
    return [rng.choice(TEMPLATES).format(name) for name in chosen]


def definition_loss(model: MiniClip, names: Tensor, subset: list[int], scale: Tensor) -> Tensor:
    """The definitions of the first classes of the subset have to find their names among all of it."""
    places = functional.normalize(model.encode_text([definitions()[index] for index in subset[: BATCH // 2]]), dim=1)
    return functional.cross_entropy(scale * places @ names.detach().T, torch.arange(len(places)))


def contrast(logits: Float[Tensor, "n n"], captions: list[str]) -> Tensor:
    """Symmetric cross entropy; equal captions count as equally right."""
    same = torch.tensor([[float(first == second) for second in captions] for first in captions])
    targets = same / same.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2

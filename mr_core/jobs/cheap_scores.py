"""Scores that one forward pass of a sample gives, whatever is to be trained on it."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from mr_core.backbones.description import Output
from mr_core.scores.h_score import h_score
from mr_core.scores.leep import leep
from mr_core.scores.logme import logme

NO_SCORES: Mapping[str, float | None] = {"logme": None, "h_score": None, "leep": None}


def cheap_scores(outputs: Mapping[Output, Tensor], labels: Int[Tensor, " n"]) -> dict[str, float | None]:
    """LogME and H-score of the embedding, LEEP of the source probabilities (None without source labels).

    `outputs` are the backbone's through the untrained input transform, each `(n, d)`, on the CPU. The embedding is
    divided by its mean norm before LogME, which depends on scale: so sources stand on one. The H-score is the shrunk
    one, so that sources of any width compare.
    """
    embedding = outputs["embedding"].double()
    scaled = embedding / embedding.norm(dim=1).mean().clamp(min=torch.finfo(torch.float64).tiny)
    logits = outputs.get("source_logits")
    return {
        "logme": logme(scaled, labels),
        "h_score": h_score(scaled, labels, covariance="shrunk"),
        "leep": None if logits is None else leep(functional.softmax(logits.double(), dim=1), labels),
    }

"""The network of `builtin/mini-clip`: image tower, text tower, source label head."""

import math
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.builtin.mini_clip.tokenizer import MAX_WORDS, N_BUCKETS, tokenize
from mr_core.torchvision_compat import declare_missing_operators

declare_missing_operators()

import timm  # noqa: E402  (imports torchvision, which needs the operators declared first)

FOLDER = Path(__file__).parent
WEIGHTS_FILE = FOLDER / "weights.safetensors"
CONFIG_FILE = FOLDER / "config.json"

N_CLASSES = 1000
EMBEDDING_DIM = 1280
JOINT_DIM = 256
TEXT_WIDTH = 128
TEXT_HEADS = 4
INITIAL_LOGIT_SCALE = 1 / 0.07


class MiniClip(nn.Module):
    """A CLIP-shaped source model: MobileNetV2 trunk, hashed n-gram text tower, 1000-way label head.

    A new instance has random weights drawn from torch's global generator; `mr_core.backbones.loading`
    reads the trained ones. The trunk pads as TensorFlow does, so it takes images of any size from 32 px up.
    """

    log_logit_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk: Any = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=N_CLASSES)
        self.projection = nn.Linear(EMBEDDING_DIM, JOINT_DIM)
        self.text = TextTower()
        self.register_buffer("log_logit_scale", torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosine similarities, already exponentiated."""
        return math.exp(float(self.log_logit_scale))

    def embed(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 1280"]:
        """Pooled features of normalised images (mean and std 0.5, so values in [-1, 1])."""
        embeddings: Tensor = self.trunk.forward_head(self.trunk.forward_features(images), pre_logits=True)
        return embeddings

    def source_logits(self, embeddings: Float[Tensor, "n 1280"]) -> Float[Tensor, "n 1000"]:
        """Logits over the source classes listed in `config.json`."""
        logits: Tensor = self.trunk.classifier(embeddings)
        return logits

    def project(self, embeddings: Float[Tensor, "n 1280"]) -> Float[Tensor, "n 256"]:
        """Place in the joint image-text space, not normalised."""
        projected: Tensor = self.projection(embeddings)
        return projected

    def encode_text(self, texts: list[str]) -> Float[Tensor, "n 256"]:
        """Place of each text in the joint image-text space, not normalised."""
        encoded: Tensor = self.text(texts)
        return encoded

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 1000"]:
        """Source logits of normalised images."""
        return self.source_logits(self.embed(images))


class TextTower(nn.Module):
    """One pre-norm transformer block over words, each the mean of its hashed n-gram vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.ngrams = nn.EmbeddingBag(N_BUCKETS + 1, TEXT_WIDTH, mode="mean", padding_idx=0)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, TEXT_WIDTH) * 0.1)
        self.attention_norm = nn.LayerNorm(TEXT_WIDTH)
        self.qkv = nn.Linear(TEXT_WIDTH, 3 * TEXT_WIDTH)
        self.attention_output = nn.Linear(TEXT_WIDTH, TEXT_WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(TEXT_WIDTH),
            nn.Linear(TEXT_WIDTH, 2 * TEXT_WIDTH),
            nn.GELU(),
            nn.Linear(2 * TEXT_WIDTH, TEXT_WIDTH),
        )
        self.output = nn.Sequential(nn.LayerNorm(TEXT_WIDTH), nn.Linear(TEXT_WIDTH, JOINT_DIM))

    def forward(self, texts: list[str]) -> Float[Tensor, "n 256"]:
        """Mean over the words after the block, projected to the joint space."""
        device = self.positions.device
        ids, offsets, lengths = (part.to(device) for part in pack([tokenize(text) for text in texts]))
        is_word = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        hidden = self.positions.new_zeros(*is_word.shape, TEXT_WIDTH)
        hidden[is_word] = self.ngrams(ids, offsets)
        hidden = hidden + self.positions[: hidden.shape[1]]
        hidden = hidden + self._attend(self.attention_norm(hidden), is_word)
        hidden = hidden + self.mlp(hidden)
        weights = is_word[..., None].to(hidden.dtype)
        pooled: Tensor = self.output((hidden * weights).sum(1) / weights.sum(1))
        return pooled

    def _attend(self, hidden: Tensor, is_word: Tensor) -> Tensor:
        n, length, width = hidden.shape
        query, key, value = self.qkv(hidden).view(n, length, 3, TEXT_HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=is_word[:, None, None, :])
        output: Tensor = self.attention_output(attended.transpose(1, 2).reshape(n, length, width))
        return output


def pack(tokens: list[list[tuple[int, ...]]]) -> tuple[Int[Tensor, " ids"], Int[Tensor, " words"], Int[Tensor, " n"]]:
    """N-gram ids of all words in a row, where each word starts, and how many words each text has."""
    all_words = list(chain.from_iterable(tokens))
    ids = torch.tensor(list(chain.from_iterable(all_words)))
    sizes = torch.tensor([len(word) for word in all_words])
    return ids, sizes.cumsum(0) - sizes, torch.tensor([len(text) for text in tokens])

"""A frozen vision transformer as plain tensors and linear maps, up to its class token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.engine.frozen_linear import FrozenLinear

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BlockWeights:
    """One pre-norm block: attention and a two-layer perceptron, each added to what it read."""

    n_heads: int
    norm_1: nn.LayerNorm
    in_weight: Float[Tensor, "_ d"]  # rows of the queries, then the keys, then the values
    in_bias: Float[Tensor, " _"] | None
    out: nn.Linear
    norm_2: nn.LayerNorm
    first: nn.Linear
    activation: nn.Module
    second: nn.Linear


@dataclass(frozen=True)
class TowerWeights:
    """All that a vision transformer with a class token computes from."""

    patches: nn.Conv2d
    class_token: Float[Tensor, "1 1 d"]
    positions: Float[Tensor, "1 t d"]
    norm_before: nn.Module
    blocks: Sequence[BlockWeights]
    norm_after: nn.Module
    projection: Float[Tensor, "d e"] | None

    def tensors(self) -> list[Tensor]:
        """Each tensor it reads, so that a caller can tell whether the stock model has others."""
        modules = [self.patches, self.norm_before, self.norm_after]
        loose = [self.class_token, self.positions, self.projection]
        for block in self.blocks:
            modules += [block.norm_1, block.out, block.norm_2, block.first, block.activation, block.second]
            loose += [block.in_weight, block.in_bias]
        read = [tensor for tensor in loose if tensor is not None]
        return read + [parameter for module in modules for parameter in module.parameters()]


class Tower:
    """Normalised canvases in, the class token's embedding out; products in `dtype`, all else in float32.

    What the stock model computes, in fewer passes: patches by one product (their stride is their size), queries,
    keys and values by another, no transposition to tokens first. Of the last block only the class token's row is
    computed, since nothing else is read. Deep copies share it: it is derived from frozen weights and never written.
    """

    def __init__(self, weights: TowerWeights, *, dtype: torch.dtype, is_packed: bool) -> None:
        def linear(weight: Tensor, bias: Tensor | None) -> FrozenLinear:
            return FrozenLinear(weight, bias, dtype=dtype, is_packed=is_packed)

        convolution = weights.patches
        self._patch_size = convolution.kernel_size[0]
        self._patches = linear(convolution.weight.flatten(1), convolution.bias)
        self._class_token, self._positions = weights.class_token.detach(), weights.positions.detach()
        self._norm_before, self._norm_after = _norm(weights.norm_before), _norm(weights.norm_after)
        self._blocks = [_Block(block, linear) for block in weights.blocks[:-1]]
        self._last = _LastBlock(weights.blocks[-1], linear)
        self._projection = None if weights.projection is None else weights.projection.detach()

    def __call__(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n e"]:
        tokens = self._patches(_cut(canvases, self._patch_size)).float()
        tokens = torch.cat([self._class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self._positions
        tokens = self._norm_before(tokens)
        for block in self._blocks:
            tokens = block(tokens)
        embeddings = self._norm_after(self._last(tokens).squeeze(1))
        return embeddings if self._projection is None else embeddings @ self._projection

    def __deepcopy__(self, _: dict[int, Any]) -> "Tower":
        return self


Linear = Callable[[Tensor, Tensor | None], FrozenLinear]


class _Block:
    """Every token to every token."""

    def __init__(self, weights: BlockWeights, linear: Linear) -> None:
        self._n_heads = weights.n_heads
        self._norm = _norm(weights.norm_1)
        self._in = linear(weights.in_weight, weights.in_bias)
        self._out = linear(weights.out.weight, weights.out.bias)
        self._perceptron = _Perceptron(weights, linear)

    def __call__(self, tokens: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        queries, keys, values = _heads(self._in(self._norm(tokens)), 3, self._n_heads)
        return self._perceptron(tokens + self._out(_attend(queries, keys, values)))


class _LastBlock:
    """The class token alone looks at all tokens."""

    def __init__(self, weights: BlockWeights, linear: Linear) -> None:
        self._n_heads = weights.n_heads
        self._norm = _norm(weights.norm_1)
        third = len(weights.in_weight) // 3
        bias = weights.in_bias
        self._queries = linear(weights.in_weight[:third], None if bias is None else bias[:third])
        self._keys_values = linear(weights.in_weight[third:], None if bias is None else bias[third:])
        self._out = linear(weights.out.weight, weights.out.bias)
        self._perceptron = _Perceptron(weights, linear)

    def __call__(self, tokens: Float[Tensor, "n t d"]) -> Float[Tensor, "n 1 d"]:
        normed = self._norm(tokens)
        (queries,) = _heads(self._queries(normed[:, :1]), 1, self._n_heads)
        keys, values = _heads(self._keys_values(normed), 2, self._n_heads)
        return self._perceptron(tokens[:, :1] + self._out(_attend(queries, keys, values)))


class _Perceptron:
    def __init__(self, weights: BlockWeights, linear: Linear) -> None:
        self._norm = _norm(weights.norm_2)
        self._first = linear(weights.first.weight, weights.first.bias)
        self._activation = _activation(weights.activation)
        self._second = linear(weights.second.weight, weights.second.bias)

    def __call__(self, tokens: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        return tokens + self._second(self._activation(self._first(self._norm(tokens))))


def _cut(canvases: Float[Tensor, "n c s s"], size: int) -> Float[Tensor, "n t p"]:
    """Each patch a row, in the order of a convolution's kernel; rows that fill no patch are left out, as there."""
    n, channels, height, width = canvases.shape
    rows, columns = height // size, width // size
    whole = canvases[:, :, : rows * size, : columns * size]
    grid = whole.reshape(n, channels, rows, size, columns, size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, channels * size * size)


def _heads(products: Float[Tensor, "n t w"], parts: int, n_heads: int) -> tuple[Tensor, ...]:
    """`parts` tensors `(n, heads, t, w')`, each contiguous, as batched products want them."""
    n, t, width = products.shape
    split = products.view(n, t, parts, n_heads, width // parts // n_heads)
    return split.permute(2, 0, 3, 1, 4).contiguous().unbind(0)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Float[Tensor, "n t d"]:
    """softmax(Q K^T / sqrt(d)) V. For the 50 to 200 tokens of an image, batched products are faster than torch's
    fused attention forward and backward: by a quarter in float32, fourfold in bfloat16.
    """
    scores = (queries @ keys.transpose(-1, -2)) * queries.shape[-1] ** -0.5
    mixed: Tensor = scores.softmax(-1) @ values
    return mixed.transpose(1, 2).flatten(2)


def _norm(module: nn.Module) -> Activation:
    """Layer norm in float32, or nothing."""
    if not isinstance(module, nn.LayerNorm):
        return module
    shape, epsilon = list(module.normalized_shape), module.eps
    weight, bias = module.weight.detach(), module.bias.detach()
    return lambda tokens: functional.layer_norm(tokens, shape, weight, bias, epsilon)


def _activation(module: nn.Module) -> Activation:
    return quick_gelu if type(module).__name__ == "QuickGELU" else module


def quick_gelu(inputs: Tensor) -> Tensor:
    """x sigmoid(1.702 x) as one gate: silu(1.702 x) / 1.702."""
    return functional.silu(inputs * 1.702) * (1 / 1.702)

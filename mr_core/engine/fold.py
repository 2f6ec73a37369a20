"""Folds BatchNorm into the convolution before it: with fixed statistics both are one affine map."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def fold_batch_norm(model: nn.Module, run: Callable[[], object]) -> int:
    """Fold every BatchNorm2d whose input is a Conv2d's output, in place; return how many were folded.

    `run` makes one forward pass, during which the pairs are seen: a BatchNorm that is handed the very
    tensor a convolution returned. A convolution whose output is also read elsewhere cannot be told
    from that, so the caller compares outputs before and after.
    """
    pairs = _observe_pairs(model, run)
    parents = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    for convolution, norm in pairs:
        _absorb(convolution, norm)
        parent, name = parents[norm]
        setattr(parent, name, _what_remains(norm))
    return len(pairs)


def _observe_pairs(model: nn.Module, run: Callable[[], object]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    produced: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept alive, so its id stays its own
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        produced[id(output)] = (module, output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        source = produced.get(id(inputs[0]))
        if source is not None:
            pairs.append((source[0], module))

    hooks = [
        module.register_forward_hook(after_convolution)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(before_norm)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    convolutions = [convolution for convolution, _ in pairs]
    return [pair for pair in pairs if convolutions.count(pair[0]) == 1]  # a module used twice stays as it is


def _absorb(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """w' = w * g / sqrt(v + eps), b' = (b - m) * g / sqrt(v + eps) + beta, worked out in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    offset = torch.zeros_like(scale) if convolution.bias is None else convolution.bias.detach().double()
    bias = (offset - norm.running_mean.double()) * scale
    if norm.bias is not None:
        bias = bias + norm.bias.detach().double()
    weight = convolution.weight.detach().double() * scale.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(weight.to(convolution.weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(convolution.weight.dtype), requires_grad=False)


def _what_remains(norm: nn.BatchNorm2d) -> nn.Module:
    """The activation that timm keeps inside its norm layers, or nothing."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()

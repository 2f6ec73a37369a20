"""Runs a MobileNetV2 trunk without its batch norms while it trains, and writes the result back into them.

The teacher's batch norms were folded by its publisher: weight 1, mean 0, variance 1, only the bias means
anything. Keeping them as layers costs half of the training speed; the shipped model keeps them, so that
a random control of the same architecture can calibrate its statistics.
"""

import copy
from typing import Any

import torch
from torch import nn


def conv_norm_names(trunk: nn.Module) -> list[tuple[str, str]]:
    """Each convolution with the batch norm that follows it, in order of execution."""
    convs = [name for name, module in trunk.named_modules() if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in trunk.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return list(zip(convs, norms, strict=True))


def folded(trunk: nn.Module) -> Any:
    """A copy in which each batch norm (in eval mode) is the bias and scale of its convolution."""
    result: Any = copy.deepcopy(trunk)
    for conv_name, norm_name in conv_norm_names(trunk):
        conv: Any = result.get_submodule(conv_name)
        norm: Any = result.get_submodule(norm_name)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight = nn.Parameter((conv.weight * scale[:, None, None, None]).detach())
        conv.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())
        parent, _, leaf = norm_name.rpartition(".")
        setattr(result.get_submodule(parent), leaf, norm.act)
    return result


@torch.no_grad()
def unfold_into(trunk: nn.Module, source: nn.Module) -> None:
    """Copy the folded `source` back into `trunk`: biases go to batch norms of weight 1, mean 0, variance 1."""
    state = trunk.state_dict()
    values = source.state_dict()
    for conv_name, norm_name in conv_norm_names(trunk):
        state[f"{norm_name}.bias"] = values.pop(f"{conv_name}.bias")
        state[f"{norm_name}.weight"].fill_(1.0)
        state[f"{norm_name}.running_mean"].zero_()
        state[f"{norm_name}.running_var"].fill_(1.0)
    state.update(values)
    trunk.load_state_dict(state)

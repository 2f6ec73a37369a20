"""Finds the vision transformers of open_clip and timm whose fast form is known, and puts it in their place."""

from typing import Any

import torch
from torch import Tensor, nn

from mr_core.backbones.backbone import SourceModel
from mr_core.engine.frozen_linear import gains_by_packing
from mr_core.engine.tower import BlockWeights, Tower, TowerWeights


def is_vision_transformer(source: SourceModel) -> bool:
    """Whether `use_fast_tower` would replace this model's tower."""
    return _weights(source) is not None


def use_fast_tower(source: Any, *, dtype: torch.dtype = torch.float32) -> None:
    """Replace, in place, the image tower of a source that `is_vision_transformer`."""
    weights = _weights(source)
    assert weights is not None
    tower = Tower(weights, dtype=dtype, is_packed=gains_by_packing(dtype))
    if weights.projection is None:
        source.model = _FastTimmModel(source.model, tower)
    else:
        source.model.visual = _FastVisual(source.model.visual, tower)


class _FastVisual(nn.Module):
    """In the place of open_clip's `VisionTransformer`; the stock one runs where the fast form does not apply."""

    def __init__(self, plain: nn.Module, tower: Tower) -> None:
        super().__init__()
        self.plain = plain
        self._tower = tower

    def forward(self, canvases: Tensor) -> Tensor:
        return self._tower(canvases) if _applies(self.plain, canvases) else self.plain(canvases)


class _FastTimmModel(nn.Module):
    """In the place of timm's `VisionTransformer`; of the tokens only the class token is given, as the head reads it."""

    def __init__(self, plain: Any, tower: Tower) -> None:
        super().__init__()
        self.plain = plain
        self._tower = tower

    def forward_features(self, canvases: Tensor) -> Tensor:
        if _applies(self.plain, canvases):
            return self._tower(canvases).unsqueeze(1)
        return self.plain.forward_features(canvases)  # type: ignore[no-any-return]

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        return self.plain.forward_head(tokens, pre_logits=pre_logits)  # type: ignore[no-any-return]

    def get_classifier(self) -> nn.Module:
        return self.plain.get_classifier()  # type: ignore[no-any-return]


def _applies(plain: nn.Module, canvases: Tensor) -> bool:
    """Float32 on CPU and weights that are not being trained: a tangent kernel may ask for their gradients."""
    if canvases.dtype != torch.float32 or canvases.device.type != "cpu":
        return False
    return not any(parameter.requires_grad for parameter in plain.parameters())


def _weights(source: Any) -> TowerWeights | None:
    """None for any architecture or option that the tower does not compute."""
    model: Any = getattr(source, "model", None)
    if not hasattr(model, "visual") and not type(model).__module__.startswith("timm."):
        return None  # before timm is imported, which takes seconds
    try:
        weights = _of_open_clip(model.visual) if hasattr(model, "visual") else _of_timm(model)
    except AttributeError:  # another block than the standard one
        return None
    return weights


def _of_open_clip(visual: Any) -> TowerWeights | None:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    blocks = visual.transformer.resblocks
    if not (
        type(visual) is VisionTransformer
        and visual.pool_type == "tok"
        and visual.attn_pool is None
        and not visual.output_tokens
        and visual.proj is not None
        and all(type(block) is ResidualAttentionBlock for block in blocks)
        and all(_is_plain_attention(block.attn) for block in blocks)
    ):
        return None
    weights = TowerWeights(
        patches=visual.conv1,
        class_token=visual.class_embedding.view(1, 1, -1),
        positions=visual.positional_embedding[None],
        norm_before=visual.ln_pre,
        blocks=[
            BlockWeights(
                n_heads=block.attn.num_heads,
                norm_1=block.ln_1,
                in_weight=block.attn.in_proj_weight,
                in_bias=block.attn.in_proj_bias,
                out=block.attn.out_proj,
                norm_2=block.ln_2,
                first=block.mlp.c_fc,
                activation=block.mlp.gelu,
                second=block.mlp.c_proj,
            )
            for block in blocks
        ],
        norm_after=visual.ln_post,
        projection=visual.proj,
    )
    return weights if _reads_all(weights, visual.parameters()) else None


def _is_plain_attention(attention: nn.MultiheadAttention) -> bool:
    return attention.in_proj_weight is not None and not attention.add_zero_attn and attention.bias_k is None


def _of_timm(model: Any) -> TowerWeights | None:
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import Block, VisionTransformer

    if not (
        type(model) is VisionTransformer
        and model.global_pool == "token"
        and model.attn_pool is None
        and model.num_prefix_tokens == 1
        and not model.no_embed_class
        and not model.dynamic_img_size
        and type(model.patch_embed) is PatchEmbed
        and model.patch_embed.flatten
        and not model.patch_embed.dynamic_img_pad
        and all(type(block) is Block for block in model.blocks)
        and all(type(block.attn) is Attention and type(block.mlp) is Mlp for block in model.blocks)
    ):
        return None
    weights = TowerWeights(
        patches=model.patch_embed.proj,
        class_token=model.cls_token,
        positions=model.pos_embed,
        norm_before=model.norm_pre,
        blocks=[
            BlockWeights(
                n_heads=block.attn.num_heads,
                norm_1=block.norm1,
                in_weight=block.attn.qkv.weight,
                in_bias=block.attn.qkv.bias,
                out=block.attn.proj,
                norm_2=block.norm2,
                first=block.mlp.fc1,
                activation=block.mlp.act,
                second=block.mlp.fc2,
            )
            for block in model.blocks
        ],
        norm_after=model.norm,
        projection=None,
    )
    head = {id(parameter) for module in (model.head, model.fc_norm) for parameter in module.parameters()}
    return weights if _reads_all(weights, (p for p in model.parameters() if id(p) not in head)) else None


def _reads_all(weights: TowerWeights, parameters: Any) -> bool:
    """Whether the tower reads every parameter: one left over belongs to something it does not compute."""
    read = {tensor.data_ptr() for tensor in weights.tensors()}
    return all(parameter.data_ptr() in read for parameter in parameters)

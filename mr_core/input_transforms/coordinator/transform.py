"""A prompt that a small network draws of each sample's features."""

import math
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import MINI_CLIP, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.errors import AdapterError
from mr_core.input_transforms.module import InputTransform, JacobianFactor

_CHANNELS = 32  # of the map that the decoder begins with
_STAGES = ((64, 64), (64, 32), (32, 32), (32, 16))  # channels of each doubling: grouped, then mixed


class CoordinatorTransform(InputTransform):
    """`clip(x + eps g([h(x); p]))` of normalised images, h frozen, g and p trained (arXiv:2303.14773, equation 3).

    Features and trigger p fill a map of 32 channels, `ceil(S / 32)` a side and large enough for both; five doublings
    make it a canvas, which is resized where S is no multiple of 32. 9,120 parameters and the trigger: with the 768
    features of the paper's encoder and S = 224 its 9,920. Clipped to pixels in [0, 1]. In training batch norm takes the
    statistics of a pass; else it is fixed. The decoder starts the same each time. Its state has the encoder's
    digest, and that of another encoder is refused (AdapterError).
    """

    scale: Float[Tensor, "3 1 1"]
    encoder_sha256: UInt8[Tensor, "32"]

    def __init__(self, canvas: Preprocessing, *, strength: float) -> None:
        super().__init__(image_size=canvas.size, canvas_size=canvas.size)
        self.register_buffer("scale", strength * torch.tensor(canvas.std).view(3, 1, 1), persistent=False)
        encoder = _encoder("cpu", torch.float32)
        self.register_buffer(
            "encoder_sha256", torch.tensor(list(bytes.fromhex(encoder.state_sha256)), dtype=torch.uint8)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            n_features = encoder.width("image_text")
            self.decoder = PromptDecoder(n_features=n_features, canvas_size=canvas.size)
        self.eval()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        found = state_dict.get(prefix + "encoder_sha256")
        if found is not None and not torch.equal(found.cpu(), self.encoder_sha256.cpu()):
            digests = [bytes(digest.tolist()).hex()[:12] for digest in (found, self.encoder_sha256)]
            raise AdapterError(
                f"the coordinator was trained on an encoder of sha256 {digests[0]}, here is {digests[1]}"
            )
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        prompts: Tensor = self.decoder(encoded(images))
        canvases: Tensor = (images + self.scale * prompts).clamp(0, 1)
        return canvases

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor]:
        weights = {name: tensor.detach() for name, tensor in self.decoder.named_parameters()}
        buffers = dict(self.decoder.named_buffers())

        def weighted(weights: dict[str, Tensor], features: Tensor, image: Tensor, gradient: Tensor) -> Tensor:
            prompt: Tensor = functional_call(self.decoder, {**weights, **buffers}, (features[None],))[0]
            return ((image + self.scale * prompt).clamp(0, 1) * gradient).sum()

        of_decoder = vmap(grad(weighted), in_dims=(None, 0, 0, 0))(weights, encoded(images), images, gradients)
        return (
            JacobianFactor(
                tuple(f"decoder.{name}" for name in weights),
                torch.cat([of_decoder[name].flatten(1) for name in weights], 1).detach(),
            ),
        )


class PromptDecoder(nn.Module):
    """Features `(n, d)` and the trigger to prompts `(n, 3, S, S)`: transposed convolutions, grouped, then 1 x 1."""

    def __init__(self, *, n_features: int, canvas_size: int) -> None:
        super().__init__()
        self._canvas_size = canvas_size
        self._side = max(math.ceil(canvas_size / 32), math.isqrt(n_features // _CHANNELS) + 1)
        self.trigger = nn.Parameter(torch.empty(_CHANNELS * self._side**2 - n_features).uniform_(0, 0.1))
        layers: list[nn.Module] = []
        before = _CHANNELS
        for grouped, mixed in _STAGES:
            layers += [
                nn.ConvTranspose2d(before, grouped, 2, stride=2, groups=before),
                nn.Conv2d(grouped, mixed, 1, bias=False),
                nn.BatchNorm2d(mixed),
                nn.GELU(),
            ]
            before = mixed
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(before, 3, 2, stride=2, bias=False))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 s s"]:
        seeds = torch.cat([features, self.trigger.expand(len(features), -1)], 1)
        prompts: Tensor = self.body(seeds.view(len(features), _CHANNELS, self._side, self._side))
        if prompts.shape[-1] == self._canvas_size:
            return prompts
        return functional.interpolate(prompts, size=(self._canvas_size, self._canvas_size), mode="bilinear")


@torch.no_grad()
def encoded(images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
    """The frozen encoder's embedding, of the space it shares with text, scaled to a mean square of 1."""
    encoder = _encoder(str(images.device), images.dtype)
    side = encoder.canvas_size
    shown = functional.interpolate(images.detach(), size=(side, side), mode="bilinear", antialias=True)
    embedding: Tensor = functional.normalize(encoder(shown, "image_text"), dim=1) * encoder.width("image_text") ** 0.5
    return embedding


@cache
def _encoder(device: str, dtype: torch.dtype) -> Backbone:
    return load_backbone(MINI_CLIP).to(device, dtype)

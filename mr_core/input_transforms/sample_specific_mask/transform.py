"""The additive prompt behind a mask of each sample's own."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from mr_core.backbones.description import Preprocessing
from mr_core.input_transforms.module import InputTransform, JacobianFactor

_WIDTHS = (8, 16, 32, 64, 128)


class SampleSpecificMaskTransform(InputTransform):
    """`r(x) + delta * up(f_mask(r(x)))` of normalised images, 3 S^2 parameters and the network's (arXiv:2406.03150).

    `f_mask` are 3x3 convolutions with batch norm and ReLU but for the last, which gives three unbounded channels;
    max-pooling halves the first maps and `up` repeats the last. `delta` starts at 0, so the network's first gradient is
    exactly 0. In training batch norm takes the statistics of a pass, unless that is a single pixel; else it is fixed,
    and samples do not mix: kernels and predictions are of that mode. The network starts the same each time.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self, canvas: Preprocessing, *, n_layers: int, n_pools: int) -> None:
        super().__init__(image_size=canvas.size, canvas_size=canvas.size)
        for name, values in (("mean", canvas.mean), ("std", canvas.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.delta = nn.Parameter(torch.zeros(3, canvas.size, canvas.size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = _mask_network(n_layers, n_pools)
        self._last_side = canvas.size >> min(n_pools, n_layers - 2)  # of the maps that the last batch norm sees
        self.eval()

    def mask(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        """What the pattern is multiplied by, of images in [0, 1]."""
        if self.training:
            self.network.train(len(images) > 1 or self._last_side > 1)  # a single number has no statistics
        return self._enlarged(self.network((images - self.mean) / self.std))

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        images = images.contiguous(memory_format=torch.channels_last)  # convolutions of few channels are faster so
        return torch.addcmul(images, self.std * self.delta, self.mask(images))

    def picture(self) -> Float[Tensor, "3 s s"]:
        """The pattern without a mask, around middle grey, clipped to what can be shown."""
        return (0.5 + self.delta * self.std).clamp(0, 1).detach()

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor, JacobianFactor]:
        scaled = gradients * self.std
        delta = self.delta.detach()
        weights = {name: tensor.detach() for name, tensor in self.network.named_parameters()}
        buffers = dict(self.network.named_buffers())

        def weighted(weights: dict[str, Tensor], image: Tensor, gradient: Tensor) -> Tensor:
            normalised = ((image - self.mean) / self.std)[None]
            mask = self._enlarged(functional_call(self.network, {**weights, **buffers}, (normalised,)))
            return (mask[0] * delta * gradient).sum()

        with torch.no_grad():
            mask = self.mask(images)
        of_network = vmap(grad(weighted), in_dims=(None, 0, 0))(weights, images, scaled)
        return (
            JacobianFactor(("delta",), (scaled * mask).flatten(1)),
            JacobianFactor(
                tuple(f"network.{name}" for name in weights),
                torch.cat([of_network[name].flatten(1) for name in weights], 1).detach(),
            ),
        )

    def _enlarged(self, mask: Float[Tensor, "n 3 m m"]) -> Float[Tensor, "n 3 s s"]:
        return functional.interpolate(mask, size=(self.canvas_size, self.canvas_size), mode="nearest")


def _mask_network(n_layers: int, n_pools: int) -> nn.Sequential:
    widths = (3, *_WIDTHS[: n_layers - 1])
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after)]
        if index < n_pools:
            layers.append(nn.MaxPool2d(2))  # before ReLU, which it commutes with: a quarter of the work
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 3, 3, padding=1))

"""Kernels of networks of linear and convolutional layers, from what went into each layer and the gradient behind it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mr_core.errors import KernelError
from mr_core.ntk.jacobian import grouped, jacobian_kernel, widened_state
from mr_core.ntk.kernel import KernelPart, Kind, Progress, accumulate_gram, mirror_lower_half
from mr_core.ntk.layers import Layer, Taps, layers_of, tapped
from mr_core.ntk.memory import require_memory
from mr_core.ntk.positions import accumulate_positions
from mr_core.ntk.precision import jacobian_dtype

CHUNK_SAMPLES = 64
CHUNK_BYTES = 256 * 2**20  # of one layer: what the positions of a batch see, and the gradients there
TOLERANCE = 1e-3  # of the first sample: its gradient against automatic differentiation's, its output beside another


def module_kernel(
    module: nn.Module,
    inputs: Tensor,
    names: Sequence[str],
    *,
    n_outputs: int,
    kind: Kind,
    memory_cap: int,
    on_progress: Progress,
) -> KernelPart:
    """`layered_kernel`, or `jacobian_kernel` where the module has no such form."""
    part = layered_kernel(
        module, inputs, names, n_outputs=n_outputs, kind=kind, memory_cap=memory_cap, on_progress=on_progress
    )
    if part is not None:
        return part
    return jacobian_kernel(
        module, inputs, names, n_outputs=n_outputs, kind=kind, memory_cap=memory_cap, on_progress=on_progress
    )


def layered_kernel(
    module: nn.Module,
    inputs: Tensor,
    names: Sequence[str],
    *,
    n_outputs: int,
    kind: Kind,
    memory_cap: int,
    on_progress: Progress,
) -> KernelPart | None:
    """As `jacobian_kernel`, one backward pass a batch and output; None where the module has no such form.

    A layer's gradient is the product of its input and the gradient at its output, summed over positions, which a
    convolution has many of. So a linear layer's kernel is the entrywise product of those two's (Novak et al., 2022,
    arXiv:2206.08720, section 3.2), which takes no more memory than the activations. Of many positions either the rows
    are formed or the positions taken two by two, whichever is cheaper.

    The form asks that every parameter belongs to a layer of `layers_of` that is called once; the gradient of the first
    sample is compared with automatic differentiation's, so a weight that is used in another way too is noticed, and its
    output with that beside another, so are statistics of the batch.
    Call it within `exact_arithmetic`. KernelError over the cap, or where a gradient is not finite.
    """
    layers = layers_of(module, names)
    if layers is None:
        return None
    dtype = jacobian_dtype(module)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    network = _Network(module, layers, widened_state(module, dtype), names)
    n_positions = network.positions_of(inputs[:1]) if network.keeps_apart(inputs[:2]) else None
    if n_positions is None:
        return None
    n, n_rows = len(inputs), 1 if kind == "pseudo" else n_outputs
    side = n * n_outputs if kind == "full" else n
    sizes = {
        layer.name: _row_width(layer, n_positions[layer.name], n_rows, kind) * n * dtype.itemsize for layer in layers
    }
    kernel_bytes = 8 * side * side
    require_memory(
        kernel_bytes + max(sizes.values()), cap=memory_cap, kind=kind, what="kernel and largest Jacobian block"
    )
    most = max(_batch_width(layer, n_positions[layer.name], n_rows) for layer in layers) * dtype.itemsize
    step = max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // most))
    gram = torch.zeros(side, side, dtype=torch.float64, device=inputs.device)
    groups = list(grouped(sizes, memory_cap - kernel_bytes))
    for index, group in enumerate(groups):
        chosen = [layer for layer in layers if layer.name in group]
        collected: dict[str, list[Rows]] = {name: [] for name in group}
        for start in range(0, n, step):
            stop = min(start + step, n)
            for name, rows in network.rows(inputs[start:stop], chosen, kind, first_sample=start).items():
                collected[name].append(rows)
            on_progress(index * n + stop, len(groups) * n)
        for layer in chosen:
            _accumulate(gram, layer, collected.pop(layer.name), side=side, kind=kind)
    mirror_lower_half(gram)
    return KernelPart(gram.div_(n_outputs) if kind == "trace" else gram)


@dataclass(frozen=True)
class Rows:
    """A layer's Jacobian: formed, `(n, k, p)`; or the gradient at its output `(n, k, o, l)`, and the input it `saw`."""

    rows: Tensor
    saw: Tensor | None


class _Network:
    """A module with its parameters and buffers in one precision, taken through its layers."""

    def __init__(
        self, module: nn.Module, layers: Sequence[Layer], state: Mapping[str, Tensor], names: Sequence[str]
    ) -> None:
        self._module, self._layers = module, layers
        self._leaves = {name: state[name].clone().requires_grad_() for name in names}
        self._state = {**state, **self._leaves}

    def keeps_apart(self, samples: Tensor) -> bool:
        """Whether the first sample's output is the same beside the others: gradients are taken of whole batches."""
        together, alone = (self._forward(part)[0][0].detach() for part in (samples, samples[:1]))
        return bool((together - alone).norm() <= TOLERANCE * alone.norm()) or not bool(alone.isfinite().all())

    def positions_of(self, first: Tensor) -> dict[str, int] | None:
        """Positions of each layer's output; None where the layers do not make up the gradient of this sample."""
        outputs, taps = self._forward(first)
        if any(taps.calls.get(layer.name, 0) != 1 for layer in self._layers) or not outputs.requires_grad:
            return None
        ones = torch.ones_like(outputs)
        exact = torch.autograd.grad(
            outputs, list(self._leaves.values()), ones, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        expected = dict(zip(self._leaves, exact, strict=True))
        error, norm, n_positions = 0.0, 0.0, {}
        for layer, gradient in zip(self._layers, _gradients(outputs, taps, self._layers, ones), strict=True):
            seen, behind = layer.patches(taps.inputs[layer.name]), layer.positions(gradient)
            n_positions[layer.name] = seen.shape[1]
            found = _rows_of(layer, seen, behind.unsqueeze(1)).flatten()
            parts = [expected[name].flatten() for name in layer.parameter_names if name in expected]
            error += float((found - torch.cat(parts)).square().sum())
            norm += float(found.square().sum())
        return n_positions if error <= TOLERANCE**2 * norm else None

    def rows(self, samples: Tensor, layers: Sequence[Layer], kind: Kind, *, first_sample: int) -> dict[str, Rows]:
        """The Jacobian of these layers; KernelError where it is not finite."""
        outputs, taps = self._forward(samples)
        cotangents = _cotangents(outputs, kind)
        gradients = [
            _gradients(outputs, taps, layers, cotangent, keep=index + 1 < len(cotangents))
            for index, cotangent in enumerate(cotangents)
        ]
        found = {}
        for index, layer in enumerate(layers):
            behind, saw = torch.stack([layer.positions(of[index]) for of in gradients], 1), taps.inputs[layer.name]
            if _is_formed(layer, behind.shape[3], len(cotangents), kind):
                rows = Rows(_rows_of(layer, layer.patches(saw), behind), None)
            else:
                rows = Rows(behind, saw)
            _require_finite(rows, layer, first_sample=first_sample)
            found[layer.name] = rows
        return found

    def _forward(self, samples: Tensor) -> tuple[Float[Tensor, "n c"], Taps]:
        with torch.enable_grad(), tapped(self._layers) as taps:
            outputs: Tensor = functional_call(self._module, self._state, (samples,))
            return outputs.reshape(len(samples), -1), taps


def _cotangents(outputs: Float[Tensor, "n c"], kind: Kind) -> list[Float[Tensor, "n c"]]:
    """What is differentiated: each output, or their sum over sqrt(C)."""
    n_outputs = outputs.shape[1]
    if kind == "pseudo":
        return [torch.full_like(outputs, 1 / math.sqrt(n_outputs))]
    units = torch.eye(n_outputs, dtype=outputs.dtype, device=outputs.device)
    return [unit.expand_as(outputs) for unit in units]


def _gradients(
    outputs: Tensor, taps: Taps, layers: Sequence[Layer], cotangent: Tensor, *, keep: bool = True
) -> tuple[Tensor, ...]:
    """The gradient at the output of each layer."""
    return torch.autograd.grad(
        outputs,
        [taps.outputs[layer.name] for layer in layers],
        cotangent,
        retain_graph=keep,
        allow_unused=True,
        materialize_grads=True,
    )


def _rows_of(layer: Layer, seen: Float[Tensor, "n l f"], behind: Float[Tensor, "n k o l"]) -> Float[Tensor, "n k p"]:
    """The gradients of the layer's wanted parameters, sample by sample."""
    n, k = behind.shape[:2]
    parts = []
    if layer.wants[0]:
        parts.append((behind.flatten(1, 2) @ seen).view(n, k, -1).mul_(layer.scales[0]))
    if layer.wants[1]:
        parts.append(behind.sum(3).mul_(layer.scales[1]))
    return torch.cat(parts, 2)


def _is_formed(layer: Layer, n_positions: int, n_rows: int, kind: Kind) -> bool:
    """Whether rows of the weight's gradient cost fewer products a pair of samples than the positions' overlaps do."""
    n_in, n_out = layer.widths
    pairs = n_rows if kind == "trace" else n_rows**2
    by_position = n_positions**2 * (layer.overlap_width + n_rows * n_out) + pairs * n_out * n_positions
    return n_positions > 1 and pairs * n_out * n_in < by_position


def _row_width(layer: Layer, n_positions: int, n_rows: int, kind: Kind) -> int:
    """Numbers kept of a sample."""
    n_in, n_out = layer.widths
    if _is_formed(layer, n_positions, n_rows, kind):
        return n_rows * layer.n_parameters
    return n_positions * (n_rows * n_out + n_in)


def _batch_width(layer: Layer, n_positions: int, n_rows: int) -> int:
    """Numbers of a sample that are held while its rows are formed."""
    n_in, n_out = layer.widths
    return n_positions * (n_in + n_rows * n_out)


def _accumulate(gram: Float[Tensor, "m m"], layer: Layer, parts: Sequence[Rows], *, side: int, kind: Kind) -> None:
    """Add the layer's kernel to the lower half of `gram`."""
    rows = torch.cat([part.rows for part in parts])
    inputs = [part.saw for part in parts if part.saw is not None]
    if not inputs:
        accumulate_gram(gram, rows.reshape(side, -1))
        return
    saw = torch.cat(inputs).double()
    if rows.shape[3] == 1:
        weights = torch.full((len(saw), len(saw)), layer.scales[1] ** 2 * layer.wants[1], dtype=torch.float64)
        if layer.wants[0]:
            seen = layer.patches(saw)[:, 0]
            weights = weights.to(saw.device).addmm_(seen, seen.T, alpha=layer.scales[0] ** 2)
        accumulate_gram(gram, rows.reshape(side, -1), weights=weights.to(saw.device))
        return
    if layer.wants[0]:
        scaled = rows.double() * layer.scales[0]
        accumulate_positions(gram, scaled, lambda a, b: layer.overlaps(saw[a], saw[b]), kind=kind)
    if layer.wants[1]:
        accumulate_gram(gram, (rows.sum(3) * layer.scales[1]).reshape(side, -1))


def _require_finite(rows: Rows, layer: Layer, *, first_sample: int) -> None:
    """KernelError naming sample, output and layer of the first number that is not finite."""
    finite = rows.rows.flatten(2).isfinite().all(2)
    if rows.saw is not None:
        finite &= rows.saw.flatten(1).isfinite().all(1, keepdim=True)
    if bool(finite.all()):
        return
    sample, output = (int(place) for place in (~finite).nonzero()[0])
    raise KernelError(
        f"the Jacobian of sample {first_sample + sample} is not finite (output {output}, layer {layer.name}): look at "
        "that image, or use another backbone",
        sample=first_sample + sample,
    )

"""A tangent kernel that is never formed: its products with vectors."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from mr_core.errors import KernelError
from mr_core.ntk.empirical import parameter_names
from mr_core.ntk.jacobian import count_outputs, widened_state
from mr_core.ntk.precision import exact_arithmetic, jacobian_dtype

CHUNK_SAMPLES = 16
DIRECTION_BYTES = 256 * 2**20  # of directions in parameter space at a time


@runtime_checkable
class SymmetricOperator(Protocol):
    """What iterative methods ask of a kernel; a float64 matrix is one."""

    @property
    def shape(self) -> torch.Size: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def __matmul__(self, vectors: Tensor) -> Tensor: ...


class Estimate(NamedTuple):
    """A mean over random probes, and how far it may be off."""

    value: float
    standard_error: float


class KernelOperator:
    """The full tangent kernel `Theta = J J^T` of any module, `(N C, N C)` with row `n C + c`, by its products alone.

    `Theta v = J (J^T v)`: one vector-Jacobian and one Jacobian-vector product (Novak et al., 2022, arXiv:2206.08720,
    section 3.2), in the arithmetic of `empirical_ntk`: the module's own precision, float32 at least, so a float32
    product carries errors of about 1e-6 of the largest eigenvalue. Forward mode where every operator has it, else two
    backward passes, which through torch's convolutions on CPU take far longer: the fast forms of convnets have no
    forward mode, their stock forms do. A product takes several passes over all samples, a dense kernel C backward ones
    in all: this is for kernels that do not fit in memory. Memory: P numbers a vector (256 MiB of them at a time), and
    the graph of 16 samples.

    `parameters` are those that require a gradient where None; `beat` is called once a batch of samples and may raise.
    KernelError where there are no parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        *,
        parameters: Iterable[Tensor] | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        names = parameter_names(module, parameters)
        self.dtype = jacobian_dtype(module)
        self._module = module
        self._beat = beat
        self._inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        state = widened_state(module, self.dtype)
        self._parameters = {name: state.pop(name) for name in names}
        self._fixed = state
        self._has_forward_mode = True
        with exact_arithmetic(module):
            self.n_outputs = count_outputs(module, inputs)

    @property
    def shape(self) -> torch.Size:
        side = len(self._inputs) * self.n_outputs
        return torch.Size((side, side))

    @property
    def device(self) -> torch.device:
        return self._inputs.device

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._parameters.values())

    def __matmul__(self, vectors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self.matmul(vectors)

    def matmul(self, vectors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`Theta v` of one vector `(m,)`, or of the columns of `(m, b)`, in float64.

        KernelError naming the shape where it does not fit, and where a product is not finite.
        """
        columns = vectors[:, None] if vectors.ndim == 1 else vectors
        if columns.ndim != 2 or len(columns) != self.shape[0]:
            raise KernelError(
                f"found vectors of shape {tuple(vectors.shape)}, expected ({self.shape[0]},) or that by b"
            )
        width = self.directions_at_once
        groups = [columns[:, start : start + width] for start in range(0, columns.shape[1], width)]
        products = [self.push(self.pull(group)) for group in groups]
        return torch.cat(products, dim=1).view_as(vectors) if products else columns.double()

    @property
    def directions_at_once(self) -> int:
        """How many directions in parameter space 256 MiB hold; one at least."""
        return max(1, DIRECTION_BYTES // (self.n_parameters * self.dtype.itemsize))

    def pull(self, columns: Float[Tensor, "m b"]) -> dict[str, Tensor]:
        """`J^T v` of each column: by parameter, `(b, *shape)`."""
        n_columns = columns.shape[1]
        sums = {name: values.new_zeros(n_columns, *values.shape) for name, values in self._parameters.items()}
        with exact_arithmetic(self._module):
            for rows, samples in self._chunks():
                cotangents = columns[rows].to(self.device, self.dtype)
                leaves = self._leaves()
                with torch.enable_grad():
                    values = self._outputs(leaves, samples)
                if not values.requires_grad:
                    continue
                for index in range(n_columns):
                    gradients = _gradients(values, leaves, cotangents[:, index], keep=index + 1 < n_columns)
                    for total, gradient in zip(sums.values(), gradients, strict=True):
                        total[index] += gradient
        for name, total in sums.items():
            if not bool(total.isfinite().all()):
                raise KernelError(f"the gradient of {name} is not finite: look at the samples, or at the vector")
        return sums

    def push(self, tangents: Mapping[str, Tensor]) -> Float[Tensor, "m b"]:
        """`J w` of directions in parameter space, by parameter `(b, *shape)`; float64."""
        with exact_arithmetic(self._module):
            pushed = torch.cat([self._push_chunk(tangents, samples) for _, samples in self._chunks()])
        if not bool(pushed.isfinite().all()):
            row = int((~pushed.isfinite()).any(1).nonzero()[0])
            raise KernelError(
                f"the product with the kernel is not finite at sample {row // self.n_outputs}, output "
                f"{row % self.n_outputs}: look at the samples, their outputs and the vector",
                sample=row // self.n_outputs,
            )
        return pushed

    def trace_estimate(self, n_probes: int, *, generator: torch.Generator) -> Estimate:
        """The trace, as the mean of `|J^T v|^2` over Rademacher vectors v (Hutchinson, 1990); half a product each."""
        probes = rademacher((self.shape[0], require_probes(n_probes)), generator=generator)
        squares = torch.zeros(n_probes, dtype=torch.float64)
        for index in range(n_probes):
            pulled = self.pull(probes[:, index : index + 1])
            squares[index] = sum(float(part.double().square().sum()) for part in pulled.values())
        return mean_estimate(squares)

    def random_directions(self, n: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """n directions of independent signs in parameter space, as `push` takes them."""
        return {
            name: rademacher((n, *values.shape), generator=generator).to(values)
            for name, values in self._parameters.items()
        }

    def _push_chunk(self, tangents: Mapping[str, Tensor], samples: Tensor) -> Float[Tensor, "r b"]:
        if self._has_forward_mode:
            try:
                return self._push_forward(tangents, samples)
            except RuntimeError:  # an operator without a forward-mode rule; NotImplementedError is a RuntimeError
                self._has_forward_mode = False
        return self._push_twice_backward(tangents, samples)

    def _push_forward(self, tangents: Mapping[str, Tensor], samples: Tensor) -> Float[Tensor, "r b"]:
        columns = []
        with torch.no_grad(), warnings.catch_warnings():
            # torch's own forward-mode rules are written for its deprecated compiler
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
            for index in range(_n_directions(tangents)):
                with forward_ad.dual_level():
                    duals = {
                        name: forward_ad.make_dual(values, tangents[name][index])  # type: ignore[no-untyped-call]
                        for name, values in self._parameters.items()
                    }
                    outputs = self._outputs(duals, samples)
                    _, tangent = forward_ad.unpack_dual(outputs)  # type: ignore[no-untyped-call]
                    columns.append((torch.zeros_like(outputs) if tangent is None else tangent).to(torch.float64))
        return torch.stack(columns, dim=1)

    def _push_twice_backward(self, tangents: Mapping[str, Tensor], samples: Tensor) -> Float[Tensor, "r b"]:
        """`J w` is the derivative of `w . J^T u` by u."""
        leaves = self._leaves()
        with torch.enable_grad():
            values = self._outputs(leaves, samples)
            if not values.requires_grad:
                return values.new_zeros(len(values), _n_directions(tangents), dtype=torch.float64)
            cotangent = torch.zeros_like(values).requires_grad_()
            pulled = torch.autograd.grad(
                values, list(leaves.values()), cotangent, create_graph=True, allow_unused=True, materialize_grads=True
            )
            columns = []
            for index in range(_n_directions(tangents)):
                paired = sum(
                    ((part * tangents[name][index]).sum() for name, part in zip(leaves, pulled, strict=True)),
                    start=(0 * cotangent).sum(),
                )
                (column,) = torch.autograd.grad(paired, cotangent, retain_graph=True)
                columns.append(column.to(torch.float64))
        return torch.stack(columns, dim=1)

    def _outputs(self, parameters: Mapping[str, Tensor], samples: Tensor) -> Float[Tensor, " r"]:
        values: Tensor = functional_call(self._module, {**self._fixed, **parameters}, (samples,))
        return values.reshape(-1)

    def _leaves(self) -> dict[str, Tensor]:
        return {name: values.detach().requires_grad_() for name, values in self._parameters.items()}

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the kernel, and the samples they belong to."""
        for start in range(0, len(self._inputs), CHUNK_SAMPLES):
            samples = self._inputs[start : start + CHUNK_SAMPLES]
            self._beat()
            yield slice(start * self.n_outputs, (start + len(samples)) * self.n_outputs), samples


def rademacher(shape: tuple[int, ...], *, generator: torch.Generator) -> Float[Tensor, "..."]:
    """Independent signs in float64, on the CPU."""
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.int8).to(torch.float64) * 2 - 1


def mean_estimate(values: Float[Tensor, " l"]) -> Estimate:
    """Mean and standard error of independent values."""
    return Estimate(float(values.mean()), float(values.std()) / len(values) ** 0.5)


def require_probes(n_probes: int) -> int:
    """KernelError for fewer than the two probes that a standard error takes."""
    if n_probes < 2:
        raise KernelError(f"found {n_probes} random probes, expected at least 2: an error bar takes two")
    return n_probes


def _n_directions(tangents: Mapping[str, Tensor]) -> int:
    return len(next(iter(tangents.values())))


def _gradients(values: Tensor, leaves: Mapping[str, Tensor], cotangent: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        values, list(leaves.values()), cotangent, retain_graph=keep, allow_unused=True, materialize_grads=True
    )

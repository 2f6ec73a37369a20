"""The empirical tangent kernel of any module, by the fastest exact path."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from mr_core.errors import KernelError
from mr_core.ntk.jacobian import count_outputs
from mr_core.ntk.kernel import Kind, Progress, TangentKernel
from mr_core.ntk.layered import module_kernel
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.structured import is_structured, reprogrammed_kernels
from mr_core.reprogrammed import ReprogrammedModel


def empirical_ntk(
    module: nn.Module,
    inputs: Tensor,
    *,
    parameters: Iterable[Tensor] | None = None,
    kind: Kind = "full",
    memory_cap: int = MEMORY_CAP_BYTES,
) -> Float[Tensor, "m m"]:
    """The empirical neural tangent kernel `J J^T` (Jacot et al., 2018, arXiv:1806.07572), float64, symmetric.

    With N inputs and C outputs: `full` is (N C, N C), row `n C + c` being output c of input n; `trace` is (N, N),
    the mean over outputs of `J_c J_c^T`; `pseudo` is (N, N), from the gradient of the sum of outputs divided by
    sqrt(C) (Mohamadi et al., 2023, arXiv:2206.12543). The three differ after training: say which.

    `parameters` are parameters of `module`; those that require a gradient where it is None. The Jacobian is
    formed in the module's own precision, float32 at least, in eval mode without autocast or TF32; products and
    sums are float64. Of a float32 ReLU network a unit within rounding of its kink may fall on either side as the
    batch size changes: measured on MobileNetV2, one such unit moved one sample's rows by 6e-3 while the others
    agreed with float64 to 5e-7. `memory_cap` bytes hold the kernel and the Jacobian, not the activations of a batch.

    Raises KernelError over the cap, where nothing is to train, or where a Jacobian entry is not finite.
    """
    kernel = tangent_kernel(module, inputs, parameters=parameters, kind=kind, memory_cap=memory_cap)
    total = kernel.total(memory_cap=memory_cap)
    side = total.matrix.shape[0] * total.copies
    require_memory(8 * side * side, cap=memory_cap, kind=kind, what="matrix")
    return total.dense()


def tangent_kernel(
    module: nn.Module,
    inputs: Tensor,
    *,
    parameters: Iterable[Tensor] | None = None,
    kind: Kind = "full",
    memory_cap: int = MEMORY_CAP_BYTES,
    on_progress: Progress = lambda _done, _total: None,
) -> TangentKernel:
    """As `empirical_ntk`, by group of parameters, and with Kronecker products left as their factor.

    The groups of a `ReprogrammedModel` are `input_transform` and `label_mapping`; another module is one group,
    `parameters`. `on_progress(images done, images in all)` is called at least once a batch and may raise.
    """
    names = parameter_names(module, parameters)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    with exact_arithmetic(module):
        if isinstance(module, ReprogrammedModel) and is_structured(module, names):
            n_outputs = module.label_mapping.matrix().shape[1]
            groups = reprogrammed_kernels(
                module, inputs, names, kind=kind, memory_cap=memory_cap, on_progress=on_progress
            )
        else:
            n_outputs = count_outputs(module, inputs)
            part = module_kernel(
                module,
                inputs,
                names,
                n_outputs=n_outputs,
                kind=kind,
                memory_cap=memory_cap,
                on_progress=on_progress,
            )
            groups = {"parameters": part}
    return TangentKernel(
        kind=kind,
        n_samples=len(inputs),
        n_outputs=n_outputs,
        n_parameters=sum(sizes[name] for name in names),
        groups=groups,
    )


def require_kernel_memory(kind: Kind, *, n_samples: int, n_outputs: int, memory_cap: int = MEMORY_CAP_BYTES) -> None:
    """KernelError where the kernel's eigen-decomposition would be over the cap, known before any computation.

    Not for a kernel that stays a Kronecker product (a linear head alone): that one is smaller.
    """
    side = n_samples * n_outputs if kind == "full" else n_samples
    require_memory(3 * 8 * side * side, cap=memory_cap, kind=kind, what="eigen-decomposition")


def parameter_names(module: nn.Module, parameters: Iterable[Tensor] | None) -> list[str]:
    """Names of the given parameters in the module's order; of those that require a gradient where None.

    KernelError where there are none, ValueError where a tensor is not one of the module's parameters.
    """
    named = list(module.named_parameters())
    if parameters is None:
        names = [name for name, parameter in named if parameter.requires_grad]
    else:
        wanted = {id(parameter) for parameter in parameters}
        names = [name for name, parameter in named if id(parameter) in wanted]
        if len(names) < len(wanted):
            raise ValueError(f"{len(wanted) - len(names)} of the tensors are not parameters of the module")
    if not names:
        raise KernelError("there is nothing to train: no parameter requires a gradient, so the kernel is empty")
    return names

"""One kernel of the backbone's outputs for all label mappings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Output
from mr_core.errors import KernelError
from mr_core.input_transforms.module import InputTransform
from mr_core.label_mappings.module import LabelMapping
from mr_core.ntk.empirical import tangent_kernel
from mr_core.ntk.kernel import KernelPart, Kind, Progress, TangentKernel
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.structured import backbone_outputs, mapping_kernel
from mr_core.reprogrammed import ReprogrammedModel


@dataclass(frozen=True)
class SourceKernel:
    """The kernel of a transform's parameters at the outputs `sources` of the backbone, row `n S + s` of input n.

    `outputs` are all d outputs of every sample, on which counted mappings can be fitted.
    """

    matrix: Float[Tensor, "m m"]
    sources: Int[Tensor, " s"]
    outputs: Float[Tensor, "n d"]
    reads: Output
    n_parameters: int

    def mapped(
        self, mapping: LabelMapping, *, kind: Kind = "full", memory_cap: int = MEMORY_CAP_BYTES
    ) -> TangentKernel:
        """The kernel under a label mapping: `Theta_T = (I (x) Omega^T) Theta_S (I (x) Omega)`, plus the mapping's own.

        As `tangent_kernel` of the whole model gives it, without a pass through the backbone; a mapping's bias does
        not act on the transform's part. Memory: N^2 C (S + C) float64.

        KernelError where the mapping is not linear, or reads another output or a source that `sources` lacks; over
        the cap.
        """
        omega = self._checked(mapping)
        n_samples, n_outputs = len(self.outputs), omega.shape[1]
        if kind == "pseudo":
            omega = omega.sum(1, keepdim=True) / math.sqrt(n_outputs)
        n_columns = omega.shape[1]
        require_memory(
            8 * n_samples**2 * n_columns * (len(omega) + n_columns), cap=memory_cap, kind=kind, what="sandwich"
        )
        half = (self.matrix.view(-1, len(omega)) @ omega).view(n_samples, len(omega), n_samples, n_columns)
        if kind == "trace":
            matrix = torch.einsum("isjc,sc->ij", half, omega) / n_outputs
        else:
            matrix = torch.einsum("isjc,sd->idjc", half, omega).reshape(n_samples * n_columns, -1)
        groups = {"input_transform": KernelPart((matrix + matrix.T) / 2)}
        if own := [parameter for parameter in mapping.parameters() if parameter.requires_grad]:
            with exact_arithmetic(mapping):
                groups["label_mapping"] = mapping_kernel(mapping, self.outputs, kind=kind, memory_cap=memory_cap)
        return TangentKernel(
            kind=kind,
            n_samples=n_samples,
            n_outputs=n_outputs,
            n_parameters=self.n_parameters + sum(parameter.numel() for parameter in own),
            groups=groups,
        )

    def _checked(self, mapping: LabelMapping) -> Float[Tensor, "s c"]:
        if not mapping.is_linear:
            raise KernelError("the mapping is not linear, so its kernel is not the source kernel between two matrices")
        if mapping.reads != self.reads:
            raise KernelError(f"the mapping reads {mapping.reads}, expected {self.reads}: the source kernel is of that")
        omega = mapping.matrix().detach().to(self.matrix)
        if len(omega) != self.outputs.shape[1]:
            raise KernelError(f"the mapping reads {len(omega)} outputs, expected {self.outputs.shape[1]}")
        is_read = omega.any(1)
        is_read[self.sources] = False
        if bool(is_read.any()):
            lacking = is_read.nonzero().flatten().tolist()
            raise KernelError(
                f"the mapping reads {len(lacking)} outputs that the source kernel lacks ({_listed(lacking)}); "
                f"expected some of its {len(self.sources)}"
            )
        return omega[self.sources]


def source_kernel(
    transform: InputTransform,
    backbone: Backbone,
    images: Float[Tensor, "n 3 k k"],
    *,
    reads: Output,
    sources: Sequence[int] | None = None,
    memory_cap: int = MEMORY_CAP_BYTES,
    on_progress: Progress = lambda _done, _total: None,
) -> SourceKernel:
    """The kernel that `SourceKernel.mapped` turns into that of any label mapping which reads `reads`.

    S backward passes a batch, and (N S)^2 float64: with 1,000 source classes name the `sources` that the mappings in
    question read, as `read_by` lists them; all outputs if None.

    KernelError where a source is not an output of the backbone or is named twice, where the transform has nothing
    to train, or over the cap.
    """
    width = backbone.width(reads)
    numbers = list(range(width)) if sources is None else list(sources)
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(width)):
        raise KernelError(
            f"the sources are {_listed(numbers) or 'none'}; expected different numbers from 0 to {width - 1}"
        )
    chosen = torch.tensor(numbers)
    model = ReprogrammedModel(transform, backbone, _Outputs(chosen, width=width, reads=reads)).to(images.device)
    kernel = tangent_kernel(
        model, images, parameters=transform.parameters(), memory_cap=memory_cap, on_progress=on_progress
    )
    with exact_arithmetic(model):
        outputs = backbone_outputs(model, images, on_progress=lambda _done, _total: None)
    return SourceKernel(
        matrix=kernel.total(memory_cap=memory_cap).dense(),
        sources=chosen.to(images.device),
        outputs=outputs,
        reads=reads,
        n_parameters=kernel.n_parameters,
    )


def read_by(mappings: Mapping[str, LabelMapping]) -> list[int]:
    """The outputs that any of these mappings gives weight, in order."""
    read = torch.stack([mapping.matrix().detach().any(1) for mapping in mappings.values()]).any(0)
    return read.nonzero().flatten().tolist()


def mapped_kernels(
    source: SourceKernel,
    mappings: Mapping[str, LabelMapping],
    *,
    kind: Kind = "full",
    memory_cap: int = MEMORY_CAP_BYTES,
) -> dict[str, TangentKernel]:
    """The kernels of many mappings, by name, from one source kernel; errors as of `SourceKernel.mapped`."""
    return {name: source.mapped(mapping, kind=kind, memory_cap=memory_cap) for name, mapping in mappings.items()}


class _Outputs(LabelMapping):
    """The chosen outputs themselves."""

    chosen: Int[Tensor, " s"]

    def __init__(self, chosen: Int[Tensor, " s"], *, width: int, reads: Output) -> None:
        super().__init__()
        self.reads = reads
        self._width = width
        self.register_buffer("chosen", chosen)

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n s"]:
        return outputs.index_select(1, self.chosen)

    def matrix(self) -> Float[Tensor, "d s"]:
        return torch.eye(self._width, device=self.chosen.device)[:, self.chosen]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")

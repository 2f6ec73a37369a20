"""Jacobian rows kept in files: written a stretch of samples at a time, read a slab of columns at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mr_core.ntk.kernel import GRAM_COLUMNS, KernelPart, Kind, Progress, accumulate_gram, mirror_lower_half
from mr_core.ntk.memory import require_memory


def write_rows(path: Path, rows: Sequence[Float[Tensor, "n r _"]]) -> None:
    """Keep a stretch's rows, factor by factor, in slabs of 2048 columns that lie together on disk."""
    slabs = {
        f"{which}.{first // GRAM_COLUMNS}": block[:, :, first : first + GRAM_COLUMNS].cpu().contiguous()
        for which, block in enumerate(rows)
        for first in range(0, block.shape[2], GRAM_COLUMNS)
    }
    save_file(slabs, path)


class StoredRows:
    """The rows of all samples, in the order of the stretches' files; `widths` are the factors' columns.

    A slab is in memory while it is worked on, and nothing else.
    """

    def __init__(self, files: Sequence[Path], *, widths: Sequence[int]) -> None:
        self._files = tuple(files)
        self._slabs = [
            f"{which}.{slab}" for which, width in enumerate(widths) for slab in range(-(-width // GRAM_COLUMNS))
        ]

    @property
    def n_slabs(self) -> int:
        return len(self._slabs)

    @property
    def n_stretches(self) -> int:
        return len(self._files)

    def slabs(self) -> Iterator[tuple[int, Float[Tensor, "n r c"]]]:
        """Slab after slab, of all samples: which factor it belongs to, and its columns."""
        for name in self._slabs:
            yield int(name.partition(".")[0]), torch.cat([_read(file, name) for file in self._files])

    def stretches(self) -> Iterator[tuple[slice, Sequence[Float[Tensor, "n r c"]]]]:
        """Stretch after stretch: its samples, and its slabs, each read when it is asked for."""
        start = 0
        for file in self._files:
            slabs = _Slabs(file, self._slabs)
            n = len(slabs[0])
            yield slice(start, start + n), slabs
            start += n


class _Slabs(Sequence[Tensor]):
    """The slabs of one file."""

    def __init__(self, file: Path, names: Sequence[str]) -> None:
        self._file, self._names = file, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        return _read(self._file, self._names[index])


def gram_of_rows(
    rows: StoredRows,
    *,
    kind: Kind,
    n_samples: int,
    n_outputs: int,
    sample_kernels: Sequence[Float[Tensor, "n n"] | None],
    memory_cap: int,
    on_progress: Progress = lambda _done, _total: None,
) -> KernelPart:
    """The kernel of the samples whose rows these are, as `canvas_kernel` gives it; on the CPU.

    Products and sums in float64, the lower half alone, a slab at a time. `on_progress(slabs done, slabs in all)`.
    Memory: the kernel, two copies of a slab of all rows and one in float64. KernelError over the cap.
    """
    side = n_samples * n_outputs if kind == "full" else n_samples
    n_rows = n_samples * (1 if kind == "pseudo" else n_outputs)
    weights_bytes = 8 * n_samples**2 * sum(kernel is not None for kernel in sample_kernels)
    slab_bytes = (8 + 2 * 4) * n_rows * GRAM_COLUMNS
    require_memory(8 * side**2 + weights_bytes + slab_bytes, cap=memory_cap, kind=kind, what="kernel")
    gram = torch.zeros(side, side, dtype=torch.float64)
    for done, (which, slab) in enumerate(rows.slabs()):
        accumulate_gram(gram, slab.view(side, -1), weights=sample_kernels[which])
        on_progress(done + 1, rows.n_slabs)
    mirror_lower_half(gram)
    return KernelPart(gram.div_(n_outputs) if kind == "trace" else gram)


def _read(file: Path, name: str) -> Tensor:
    """A copy: the file's pages count as this process' memory only as long as it is open."""
    with safe_open(file, framework="pt") as opened:
        slab: Tensor = opened.get_tensor(name).clone()
    return slab

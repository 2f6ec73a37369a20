"""Rows in files: the kernel of all samples from stretches of them, and from their products alone."""

import subprocess
import sys
import textwrap

import pytest
import torch

from mr_core.errors import KernelError
from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec
from mr_core.input_transforms.watermark.spec import WatermarkSpec
from mr_core.ntk import tangent_kernel
from mr_core.ntk.canvas import canvas_rows, factor_shapes
from mr_core.ntk.composed import KroneckerOperator, RowsOperator, SumOperator
from mr_core.ntk.from_rows import kernel_of_rows, operator_of_rows
from mr_core.ntk.precision import exact_arithmetic
from mr_core.ntk.stored_rows import StoredRows, write_rows
from mr_core.reprogrammed import ReprogrammedModel

KINDS = ["full", "trace", "pseudo"]


def with_transform(model, name):
    """The model with another transform, in float64, its parameters off their start."""
    specs = {"watermark": WatermarkSpec(), "fully_connected": FullyConnectedSpec(rank=2)}
    if name == "padding":
        return model
    transform = specs[name].build(model.backbone.preprocessing)
    for parameter in transform.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(5))
    return ReprogrammedModel(transform, model.backbone, model.label_mapping).to(torch.float64)


def pictures(model, n=40):
    size = model.input_transform.image_size
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def stored(model, images, folder, *, kind, ends=(16, 32, 40)):
    """The rows of stretches that end there."""
    files, start = [], 0
    for end in ends:
        with exact_arithmetic(model):
            rows = canvas_rows(model, images[start:end], kind=kind, first_sample=start)
        files.append(folder / f"{start}.safetensors")
        write_rows(files[-1], rows)
        start = end
    return StoredRows(files, widths=[shape.width for shape in factor_shapes(model.input_transform, images)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapping", ["frequent", "text", "trained linear"])
@pytest.mark.parametrize("transform", ["padding", "fully_connected"])
def test_kernel_of_stretches_is_that_of_all_samples(reprogrammed, tmp_path, transform, mapping, kind):
    model = with_transform(reprogrammed(mapping), transform)
    images = pictures(model)
    found = kernel_of_rows(model, images, stored(model, images, tmp_path, kind=kind), kind=kind)
    exact = tangent_kernel(model, images, kind=kind)
    assert set(found.groups) == set(exact.groups)
    for name, part in found.groups.items():
        assert torch.allclose(part.matrix, exact.groups[name].matrix, rtol=1e-12, atol=1e-14)
        assert torch.equal(part.matrix, part.matrix.T)
    assert (found.n_parameters, found.n_samples, found.n_outputs) == (exact.n_parameters, 40, exact.n_outputs)


def test_stretches_of_whole_batches_change_no_bit(reprogrammed, tmp_path):
    model = reprogrammed("frequent", dtype=torch.float32)
    images = pictures(model).float()
    rows = [stored(model, images, tmp_path, kind="full", ends=ends) for ends in [(16, 32, 40)]]
    found = kernel_of_rows(model, images, rows[0], kind="full").total().matrix
    assert torch.equal(found, tangent_kernel(model, images).total().matrix)
    again = kernel_of_rows(model, images, stored(model, images, tmp_path, kind="full", ends=(32, 40)), kind="full")
    assert torch.equal(found, again.total().matrix)


def test_rows_wider_than_a_slab_are_taken_in_several(reprogrammed, tmp_path, monkeypatch):
    model = with_transform(reprogrammed("frequent"), "watermark")
    images = pictures(model, 20)
    exact = tangent_kernel(model, images).total().matrix
    monkeypatch.setattr("mr_core.ntk.stored_rows.GRAM_COLUMNS", 100)
    rows = stored(model, images, tmp_path, kind="full", ends=(16, 20))
    assert rows.n_slabs == 5  # of 3 x 12 x 12 columns
    assert torch.allclose(kernel_of_rows(model, images, rows, kind="full").total().matrix, exact, rtol=1e-12, atol=0)


def test_bfloat16_rows_come_back_as_they_were(tmp_path):
    rows = [torch.randn(4, 3, 7).bfloat16(), torch.randn(4, 3, 2).bfloat16()]
    write_rows(tmp_path / "a", [part[:3] for part in rows])
    write_rows(tmp_path / "b", [part[3:] for part in rows])
    read = list(StoredRows([tmp_path / "a", tmp_path / "b"], widths=[7, 2]).slabs())
    assert [which for which, _ in read] == [0, 1]
    assert all(torch.equal(slab, part) for (_, slab), part in zip(read, rows, strict=True))


def test_refuses_a_kernel_over_the_cap(reprogrammed, tmp_path):
    model = reprogrammed("frequent")
    images = pictures(model)
    rows = stored(model, images, tmp_path, kind="full")
    with pytest.raises(KernelError, match=r"kernel of the full kernel needs .* cap is .* 'trace' or 'pseudo'"):
        kernel_of_rows(model, images, rows, kind="full", memory_cap=10_000)


@pytest.mark.parametrize("mapping", ["frequent", "text", "trained linear"])
def test_products_are_those_of_the_kernel(reprogrammed, tmp_path, mapping):
    model = reprogrammed(mapping)
    images = pictures(model)
    beats = []
    kernel = operator_of_rows(model, images, stored(model, images, tmp_path, kind="full"), beat=lambda: beats.append(1))
    exact = tangent_kernel(model, images).total().dense()
    vectors = torch.randn(len(exact), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert kernel.shape == exact.shape
    assert torch.allclose(kernel @ vectors, exact @ vectors, rtol=1e-10)
    assert torch.allclose(kernel @ vectors[:, 0], exact @ vectors[:, 0], rtol=1e-10)
    assert kernel.trace == pytest.approx(float(exact.trace()), rel=1e-12)
    assert len(beats) >= 2 * 3


def test_a_sum_knows_its_trace_where_its_parts_do():
    factor = torch.eye(2, dtype=torch.float64)
    head = KroneckerOperator(factor, copies=3)
    matrix = torch.eye(6, dtype=torch.float64)
    assert SumOperator([head, head]).trace == 12
    assert SumOperator([head, matrix]).trace is None
    assert SumOperator([head, matrix.float()]).dtype == torch.float32
    vectors = torch.randn(6, 2, dtype=torch.float64)
    assert torch.allclose(SumOperator([head, matrix]) @ vectors, 2 * vectors)


def test_rows_operator_of_one_sample(tmp_path):
    rows = torch.randn(1, 2, 5, dtype=torch.float64)
    write_rows(tmp_path / "a", [rows])
    kernel = RowsOperator(StoredRows([tmp_path / "a"], widths=[5]), n_outputs=2)
    exact = rows[0] @ rows[0].T
    assert torch.allclose(kernel @ torch.eye(2, dtype=torch.float64), exact)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_rows_are_never_all_in_memory(tmp_path):
    """288 MiB of rows: written a stretch at a time, then summed and multiplied with in a process of its own."""
    script = """
        import sys
        from pathlib import Path

        import torch

        from mr_core.ntk.composed import RowsOperator
        from mr_core.ntk.stored_rows import StoredRows, gram_of_rows, write_rows

        def held(name):
            (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
            return int(line.split()[1]) >> 10

        files, width = [Path(sys.argv[1]) / str(n) for n in range(6)], 24 * 2048
        before = held("VmRSS")
        for file in files:
            write_rows(file, [torch.rand(25, 10, width)])
        rows = StoredRows(files, widths=[width])
        gram_of_rows(rows, kind="full", n_samples=150, n_outputs=10, sample_kernels=[None], memory_cap=2**30)
        RowsOperator(rows, n_outputs=10) @ torch.rand(1500, 10, dtype=torch.float64)
        print(held("VmHWM") - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 280 * 2**20
    assert int(done.stdout) < 220

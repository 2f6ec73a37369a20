"""Diagnoses in blocks, by products alone, and in bfloat16, on squares small enough for the plain way as well."""

import json

import numpy as np
import pytest
import torch

from mr_core.errors import KernelError, SpecError
from mr_core.input_transforms.padding.transform import PaddingTransform
from mr_core.job_spec import JobSpec
from mr_core.jobs.diagnose.blocks import BATCH_SAMPLES, stretches
from mr_core.ntk.canvas import BATCH_IMAGES
from mr_core.sub_jobs import SubJobEnd, SubJobs
from tests.mr_core.jobs.diagnose.test_run import SPECTRUM_KEYS, Recorder, adapter_folder, run  # noqa: F401
from tests.mr_core.jobs.rank.test_run import Keeping


class Counting(SubJobs):
    """Runs them, and remembers which there were."""

    def __init__(self):
        self.specs = {}

    def run(self, specs, context):
        self.specs |= specs
        return super().run(specs, context)


@pytest.fixture
def dense_cap(monkeypatch):
    """A cap under which a kernel of 72 rows is not dense, and Lanczos' basis fits."""
    monkeypatch.setattr("mr_core.jobs.diagnose.run.MEMORY_CAP_BYTES", 100_000)
    monkeypatch.setattr("mr_core.ntk.matrix_free.N_STEPS", 10)


def same(first, second):
    np.testing.assert_array_equal(first.spectrum.eigenvalues, second.spectrum.eigenvalues)
    np.testing.assert_array_equal(first.spectrum.label_energy, second.spectrum.label_energy)
    assert first.spectrum.summary == second.spectrum.summary
    assert first.result["predicted"] == second.result["predicted"]


@pytest.mark.parametrize("kernel", ["full", "trace", "pseudo"])
@pytest.mark.parametrize("mapping", ["frequent", "text"])
def test_blocks_give_the_kernel_of_one_process(run, kernel, mapping):  # noqa: F811
    parts = Counting()
    fields = {"kernel": kernel, "label_mapping": {"kind": mapping}}
    whole, blocks = run(**fields), run(**fields, block_samples=16, sub_jobs=parts)
    assert sorted(parts.specs) == ["samples-0-15", "samples-16-23"]
    values = whole.spectrum.eigenvalues
    np.testing.assert_allclose(blocks.spectrum.eigenvalues, values, rtol=1e-10, atol=1e-10 * values[0])
    assert blocks.result["predicted"]["accuracy"] == whole.result["predicted"]["accuracy"]
    assert blocks.result["spectrum"]["trace"] == pytest.approx(whole.result["spectrum"]["trace"], rel=1e-10)


def test_a_fully_connected_map_and_an_adapter_have_blocks_too(run, adapter_folder):  # noqa: F811
    for fields in (
        {"input_transform": {"kind": "fully_connected", "rank": 2}},
        {"adapter": "ad_1", "adapter_folder": adapter_folder},
    ):
        whole, blocks = run(**fields), run(**fields, block_samples=16)
        values = whole.spectrum.eigenvalues
        np.testing.assert_allclose(blocks.spectrum.eigenvalues, values, rtol=1e-10, atol=1e-10 * values[0])


def test_a_settled_size_is_what_the_blocks_are_asked_for(run):  # noqa: F811
    parts = Counting()
    result = run(input_transform={"kind": "padding", "image_size": "auto"}, block_samples=16, sub_jobs=parts).result
    assert {spec.input_transform.image_size for spec in parts.specs.values()} == {result["image_size"]}


def test_the_sample_is_embedded_once_however_often_the_job_waits(run, monkeypatch):  # noqa: F811
    class Waits(SubJobs):
        def run(self, specs, context):
            raise InterruptedError

    observer = Keeping()
    fields = {"input_transform": {"kind": "padding", "image_size": "auto"}, "block_samples": 16}
    undisturbed = run(**fields)
    with pytest.raises(InterruptedError):
        run(observer=observer, sub_jobs=Waits(), **fields)
    monkeypatch.setattr("mr_core.jobs.diagnose.run._embedding", lambda *_: pytest.fail("embedded again"))
    monkeypatch.setattr("mr_core.jobs.diagnose.subject.settle_image_size", lambda *_: pytest.fail("settled again"))
    same(run(observer=observer, **fields), undisturbed)


def test_the_files_of_blocks_are_gone_afterwards(run, tmp_path):  # noqa: F811
    run(block_samples=16)
    assert list(tmp_path.glob("**/rows-*")) == []


def test_a_block_that_fails_is_named_with_its_reason(run):  # noqa: F811
    class Fails(SubJobs):
        def run(self, specs, context):
            ends = super().run(specs, context)
            error = {"code": "worker_lost", "detail": "all 3 attempts are spent", "param": None}
            return ends | {"samples-16-23": SubJobEnd("failed", error=error)}

    with pytest.raises(KernelError, match=r"block samples-16-23 .*\(worker_lost: all 3 attempts are spent\)"):
        run(block_samples=16, sub_jobs=Fails())


def test_a_jacobian_that_is_not_finite_names_layer_sample_and_file(run, monkeypatch):  # noqa: F811
    sound = PaddingTransform.jacobian_factors

    def broken(self, images, gradients):
        (factor,) = sound(self, images, gradients)
        is_brightest = images.sum((1, 2, 3)) == broken.brightest
        return (factor._replace(rows=factor.rows.masked_fill(is_brightest[:, None], torch.nan)),)

    from mr_core.jobs.diagnose import subject as subjects

    found = []
    keep = subjects.load_subject
    monkeypatch.setattr(subjects, "load_subject", keep)
    monkeypatch.setattr(
        "mr_core.jobs.diagnose.run.load_subject", lambda *a, **k: found.append(keep(*a, **k)) or found[-1]
    )
    run()
    images = found[0].images()
    broken.brightest = images[20].sum()
    monkeypatch.setattr(PaddingTransform, "jacobian_factors", broken)
    expected = r"Jacobian of sample 20 is not finite .*input_transform\.delta.*\(sample 20 is train/red/.*png\)"
    with pytest.raises(KernelError, match=expected):
        run()
    with pytest.raises(KernelError, match=rf"block samples-16-23 .*kernel_error: .*{expected}"):
        run(block_samples=16)


def test_above_the_dense_cap_the_top_comes_from_lanczos(run, dense_cap, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mr_core.jobs.diagnose.run.diagnose_artifacts", lambda **_: [])
    found = run(block_samples=16)
    monkeypatch.undo()
    monkeypatch.setattr("mr_core.jobs.diagnose.run.diagnose_artifacts", lambda **_: [])
    whole = run()
    n = len(found.spectrum.eigenvalues)
    assert n == 36
    np.testing.assert_allclose(found.spectrum.eigenvalues[:10], whole.spectrum.eigenvalues[:10], rtol=1e-6)
    spectrum = found.result["spectrum"]
    assert set(spectrum) == SPECTRUM_KEYS
    assert (spectrum["method"], spectrum["lambda_min"], spectrum["condition_number"]) == ("lanczos", None, None)
    assert spectrum["trace"] == pytest.approx(whole.result["spectrum"]["trace"], rel=1e-9)
    assert spectrum["effective_rank"] == pytest.approx(whole.result["spectrum"]["effective_rank"], rel=0.1)
    linearised = [outcome.result["predicted"]["linearised_accuracy"] for outcome in (found, whole)]
    assert linearised[0] == linearised[1]  # of all 24, being so few
    assert "largest eigenvalues come from Lanczos" in found.result["verdict"]["reason"]
    json.dumps(found.result, allow_nan=False)


def test_products_without_stored_rows_agree(run, dense_cap, monkeypatch):  # noqa: F811
    """A fully connected map's rows weigh each other, and a few samples have no blocks: both go by jvp and vjp."""
    rows, products = run(block_samples=16), run()
    top = rows.spectrum.eigenvalues[:5]
    np.testing.assert_allclose(products.spectrum.eigenvalues[:5], top, rtol=1e-4)
    assert products.result["spectrum"]["method"] == "lanczos"
    with pytest.raises(KernelError, match="needs no rows: leave block_samples out"):
        run(input_transform={"kind": "fully_connected", "rank": 2}, block_samples=16)
    assert run(input_transform={"kind": "fully_connected", "rank": 2}).result["spectrum"]["lambda_max"] > 0


def test_many_classes_leave_nothing_to_predict(run, dense_cap, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mr_core.jobs.diagnose.prediction.ROWS_OF_FEWER", 12)
    outcome = run(block_samples=16, draw=True)
    predicted = outcome.result["predicted"]
    assert (predicted["accuracy"], predicted["accuracy_interval"], predicted["n_samples"]) == (None, None, 0)
    assert predicted["training_curve"] == []
    assert "nothing is predicted" in outcome.result["verdict"]["reason"]
    assert {"plots/spectrum.svg", "report.html"} <= {file.name for file in outcome.artifacts}


def test_a_prediction_of_fewer_samples_says_so(run, dense_cap, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mr_core.jobs.diagnose.prediction.ROWS_OF_FEWER", 54)
    result = run(block_samples=16).result
    assert result["predicted"]["n_samples"] == 18
    assert "The prediction is that of 18 of its 24 samples" in result["verdict"]["reason"]


@pytest.mark.parametrize("block_samples", [None, 16])
def test_bfloat16_tells_its_measured_error(run, block_samples):  # noqa: F811
    near, exact = run(precision="bfloat16", block_samples=block_samples), run()
    told = near.result["spectrum"]
    assert told["precision"] == "bfloat16"
    assert 1e-5 < told["error"]["relative"] < 0.05
    assert told["error"]["samples"] == [0, 8, 15, 23]
    assert told["resolution"]["limit"] > exact.result["spectrum"]["resolution"]["limit"]
    assert near.spectrum.summary["error"] == told["error"]
    assert told["lambda_max"] == pytest.approx(exact.result["spectrum"]["lambda_max"], rel=0.05)
    assert told["lambda_max"] != exact.result["spectrum"]["lambda_max"]
    assert (exact.result["spectrum"]["precision"], exact.result["spectrum"]["error"]) == ("float32", None)


def test_bfloat16_by_products_and_after_training(run, dense_cap, adapter_folder):  # noqa: F811
    products = run(precision="bfloat16", block_samples=16).result["spectrum"]
    assert (products["method"], products["precision"]) == ("lanczos", "bfloat16")
    assert 1e-5 < products["error"]["relative"] < 0.05
    with pytest.raises(KernelError, match="taken by products in float32: leave precision out"):
        run(precision="bfloat16")
    trained = run(precision="bfloat16", block_samples=16, adapter="ad_1", adapter_folder=adapter_folder)
    assert trained.result["spectrum"]["error"]["relative"] > 0


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        (
            {"input_transform": {"kind": "identity"}, "label_mapping": {"kind": "linear"}, "precision": "bfloat16"},
            "expected all parameters of a transform that knows its gradient",
            "precision",
        ),
        (
            {"input_transform": {"kind": "identity"}, "label_mapping": {"kind": "linear"}, "block_samples": 16},
            "a kernel of IdentityTransform and LinearMapping has no blocks",
            "block_samples",
        ),
        ({"label_mapping": {"kind": "linear"}, "block_samples": 16}, "LinearMapping has no blocks", "block_samples"),
    ],
)
def test_refuses_what_a_kernel_cannot_be(run, fields, message, param):  # noqa: F811
    with pytest.raises(KernelError, match=message) as caught:
        run(**fields)
    assert caught.value.param == param


def test_refuses_rows_over_the_cap_of_files_where_blocks_are_asked_for(run, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mr_core.jobs.diagnose.kernels.ROWS_CAP_BYTES", 1000)
    with pytest.raises(KernelError, match=r"stored rows of the full kernel needs .* cap is .* 'trace' or 'pseudo'"):
        run(block_samples=16)
    assert run().result["spectrum"]["method"] == "dense"


def test_refuses_a_basis_over_the_cap_before_embedding(run, monkeypatch):  # noqa: F811
    monkeypatch.setattr("mr_core.jobs.diagnose.run.MEMORY_CAP_BYTES", 10_000)
    with pytest.raises(KernelError, match=r"24 samples x 3 classes: the Krylov basis .* cap is .* 'trace' or 'pseudo'"):
        run(observer=Recorder(cancel_in="diagnosing"))


def test_a_block_of_samples_that_are_not_there_is_refused(run):  # noqa: F811
    parts = Counting()
    run(block_samples=16, sub_jobs=parts)
    beyond = parts.specs["samples-16-23"].model_dump(mode="json") | {"stop": 30}

    class Beyond(SubJobs):
        def run(self, specs, context):
            return super().run({"samples-16-23": JobSpec.parse(beyond)}, context)

    with pytest.raises(KernelError, match="found samples 16 to 29, the subsample has 24"):
        run(block_samples=16, sub_jobs=Beyond())


def test_fewer_samples_than_classes_are_refused_with_blocks_too(run):  # noqa: F811
    shades = {f"shade {i}": (i * 40, 0, 0) for i in range(5)}
    with pytest.raises(SpecError, match="4 samples cannot cover 5 classes"):
        run(colours=shades, samples=4, block_samples=16)


def test_stretches_are_whole_batches():
    assert BATCH_SAMPLES == BATCH_IMAGES
    assert stretches(250, passes=10) == []
    assert stretches(300, passes=10) == [range(0, 160), range(160, 300)]
    assert stretches(5000, passes=1) == [range(0, 1264), range(1264, 2528), range(2528, 3792), range(3792, 5000)]
    assert len(stretches(5000, passes=1000)) == 313  # batches are the smallest, and fewer than sub-jobs may be
    assert stretches(40, passes=2, block_samples=32) == [range(0, 32), range(32, 40)]
    assert stretches(300, passes=10, bytes_a_sample=3 * 2**20)[0] == range(0, 32)
    assert stretches(300, passes=10, bytes_a_sample=2**30)[0] == range(0, 16)

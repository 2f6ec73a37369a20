"""Kernels from bfloat16 gradients: near, and by how much."""

import pytest
import torch

from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.errors import KernelError, SpecError
from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec
from mr_core.input_transforms.module import InputTransform
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.ntk import bfloat16_kernel, tangent_kernel
from mr_core.ntk.kernel import KernelPart, MeasuredError, TangentKernel
from mr_core.ntk.spectrum import eigendecomposition, spectrum
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.torchvision_compat import declare_missing_operators

declare_missing_operators()  # as loading does: this backbone is not loaded, and accelerating it asks what timm is

KINDS = ["full", "trace", "pseudo"]


def rows_of(samples, per_sample):
    return [sample * per_sample + row for sample in samples for row in range(per_sample)]


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapping", ["frequent", "text", "trained linear"])
def test_is_near_and_says_how_near(reprogrammed, images, mapping, kind):
    model = reprogrammed(mapping, dtype=torch.float32)
    found = bfloat16_kernel(model, images.float(), kind=kind, n_checked=3)
    exact = tangent_kernel(reprogrammed(mapping), images, kind=kind)
    near, true = found.groups["input_transform"].matrix, exact.groups["input_transform"].matrix
    assert 1e-5 < relative_error(near, true) < 0.05  # that it is bfloat16 shows, too
    assert found.error.samples == (0, 2, 5)
    rows = rows_of(found.error.samples, len(near) // 6)
    block = relative_error(near[rows][:, rows], true[rows][:, rows])
    assert found.error.relative == pytest.approx(block, rel=0.01)
    assert torch.equal(near, near.T)
    assert (found.n_samples, found.n_outputs, found.n_parameters) == (6, exact.n_outputs, exact.n_parameters)


def test_the_mappings_own_part_is_exact(reprogrammed, images):
    model = reprogrammed("trained linear", dtype=torch.float32)
    found, exact = bfloat16_kernel(model, images.float()), tangent_kernel(model, images.float())
    assert torch.equal(found.groups["label_mapping"].matrix, exact.groups["label_mapping"].matrix)


def test_a_fully_connected_map(reprogrammed):
    framed = reprogrammed("frequent", dtype=torch.float32)
    transform = FullyConnectedSpec(rank=2).build(framed.backbone.preprocessing)
    model = ReprogrammedModel(transform, framed.backbone, framed.label_mapping)
    images = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = bfloat16_kernel(model, images)
    exact = tangent_kernel(model, images).total().matrix
    assert relative_error(found.total().matrix, exact) < 0.05
    assert found.error.relative < 0.05


def test_an_untrained_head_leaves_nothing_to_be_wrong_about(reprogrammed, images):
    found = bfloat16_kernel(reprogrammed("linear", dtype=torch.float32), images.float())
    assert found.error.relative == 0


def test_the_model_keeps_its_backbone(reprogrammed, images):
    model = reprogrammed("frequent", dtype=torch.float32)
    backbone, before = model.backbone, tangent_kernel(model, images.float()).total().matrix
    bfloat16_kernel(model, images.float())
    assert model.backbone is backbone
    assert torch.equal(tangent_kernel(model, images.float()).total().matrix, before)


def test_what_the_error_hides_is_not_resolved():
    """Eigenvalues 1 and 1e-3 beside an error of 1 %."""
    part = KernelPart(torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-3])).double())
    targets = torch.eye(4).double()
    for error, reason in ((None, None), (MeasuredError(0.01, (0,)), "below_precision")):
        kernel = TangentKernel(
            kind="trace", n_samples=4, n_outputs=4, n_parameters=100, groups={"all": part}, error=error
        )
        summary = spectrum(kernel, part, eigendecomposition(part), targets).summary
        assert summary["resolution"]["reason"] == reason
        assert (summary["lambda_min"] is None) == (reason is not None)
    assert summary["numerical_rank"] == 3
    assert summary["resolution"]["limit"] == pytest.approx(0.01 * 3**0.5, rel=1e-3)


def test_refuses_a_backbone_that_loses_its_gradient():
    backbone = load_backbone(MINI_CLIP)
    model = ReprogrammedModel(
        PaddingSpec().build(backbone.preprocessing), backbone, FrequentSpec().build(backbone, ["a", "b"])
    )
    size = model.input_transform.image_size
    with pytest.raises(SpecError, match="does not keep its gradient in bfloat16"):
        bfloat16_kernel(model, torch.rand(2, 3, size, size), n_checked=1)


def test_refuses_another_precision_and_an_accelerated_backbone(reprogrammed, images):
    with pytest.raises(KernelError, match=r"found a model in torch\.float64, expected torch\.float32"):
        bfloat16_kernel(reprogrammed("frequent"), images)
    model = reprogrammed("frequent", dtype=torch.float32)
    model.backbone = accelerate(model.backbone)
    with pytest.raises(KernelError, match="found an accelerated backbone, expected the stock one"):
        bfloat16_kernel(model, images.float())


@pytest.mark.parametrize("n_checked", [0, 7])
def test_refuses_a_check_of_no_samples_or_of_too_many(reprogrammed, images, n_checked):
    with pytest.raises(KernelError, match=rf"found {n_checked} samples to check, expected 1 to 6"):
        bfloat16_kernel(reprogrammed("frequent", dtype=torch.float32), images.float(), n_checked=n_checked)


class Gain(InputTransform):
    """Multiplies the image; its factors are not told."""

    def __init__(self):
        super().__init__(image_size=12, canvas_size=12)
        self.gain = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images):
        return images * self.gain


def test_refuses_what_has_no_structured_path(reprogrammed):
    framed = reprogrammed("trained linear", dtype=torch.float32)
    images = torch.rand(2, 3, 12, 12)
    for model in (
        ReprogrammedModel(Gain(), framed.backbone, framed.label_mapping),
        reprogrammed("linear", framed=False, dtype=torch.float32),
    ):
        with pytest.raises(KernelError, match="expected all parameters of a transform that knows its gradient"):
            bfloat16_kernel(model, images, n_checked=1)

"""Every registered input transform through the structured path: the checks that every implementation must pass."""

import itertools

import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.input_transforms import INPUT_TRANSFORMS
from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec
from mr_core.input_transforms.learnable_resize.spec import LearnableResizeSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.input_transforms.patch.spec import PatchSpec
from mr_core.input_transforms.sample_specific_mask.spec import SampleSpecificMaskSpec
from mr_core.input_transforms.sequence.spec import SequenceSpec
from mr_core.input_transforms.watermark.spec import WatermarkSpec
from mr_core.ntk import empirical_ntk, tangent_kernel
from mr_core.ntk.canvas import column_slices, has_factors
from mr_core.ntk.jacobian import jacobian_kernel
from mr_core.ntk.precision import exact_arithmetic
from mr_core.reprogrammed import ReprogrammedModel

KINDS = ["full", "trace", "pseudo"]
N, C = 5, 3
SPECS = {
    **{kind: spec() for kind, spec in INPUT_TRANSFORMS.items() if spec().views == 1},
    "padding, image of 9": PaddingSpec(image_size=9),
    "watermark, along the edge": WatermarkSpec(width=2),
    "patch, moving": PatchSpec(size=3, place="random", space="pixel"),
    "learnable_resize, shrunken": LearnableResizeSpec(image_size=9, scale=0.7),
    "sample_specific_mask, six layers": SampleSpecificMaskSpec(layers=6, pools=1),
    "fully_connected, resized": FullyConnectedSpec(image_size=5),
    "fully_connected, rank 2": FullyConnectedSpec(rank=2),
    "fully_connected, rank 3, resized": FullyConnectedSpec(image_size=7, rank=3),
    "sequence, rank 2 in a frame": SequenceSpec(transforms=(FullyConnectedSpec(rank=2), PaddingSpec(image_size=6))),
    "sequence of three": SequenceSpec(
        transforms=(WatermarkSpec(), FullyConnectedSpec(image_size=4), PaddingSpec(image_size=8))
    ),
}
TRAINED = {name: spec for name, spec in SPECS.items() if name != "identity"}


@pytest.fixture(params=TRAINED.values(), ids=TRAINED)
def build(request, reprogrammed):
    """Builds the model of a transform that is away from its starting point, and images for it."""

    def build(mapping="frequent", dtype=torch.float64):
        framed = reprogrammed(mapping, dtype=dtype)
        transform = request.param.build(framed.backbone.preprocessing)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in transform.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        images = torch.rand(N, 3, transform.image_size, transform.image_size, generator=generator, dtype=dtype)
        return ReprogrammedModel(transform, framed.backbone, framed.label_mapping).to(dtype), images

    return build


def jacobian(model, images):
    """One backward pass per sample and output: rows sample-major, in float64."""
    parameters = list(model.adapter_parameters())
    rows = []
    for sample in images:
        for value in model(sample[None])[0]:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def general_kernel(model, images, kind):
    with exact_arithmetic(model):
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        return jacobian_kernel(
            model,
            images,
            names,
            n_outputs=model.label_mapping.matrix().shape[1],
            kind=kind,
            memory_cap=2**30,
            on_progress=lambda done, total: None,
        ).matrix


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_transforms_of_this_package_are_structured(build):
    model, images = build()
    assert has_factors(model.input_transform, images)


def test_equals_a_naive_double_loop(build):
    model, images = build()
    rows = jacobian(model, images)
    expected = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, j in itertools.product(range(len(rows)), repeat=2):
        expected[i, j] = (rows[i] * rows[j]).sum()
    assert relative_error(empirical_ntk(model, images), expected) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapping", ["frequent", "text", "trained linear"])
def test_equals_the_general_path(build, mapping, kind):
    model, images = build(mapping)
    assert relative_error(empirical_ntk(model, images, kind=kind), general_kernel(model, images, kind)) < 1e-12


def test_single_precision_is_near_double(build):
    model, images = build(dtype=torch.float32)
    found = empirical_ntk(model, images)
    assert relative_error(found, empirical_ntk(model.double(), images.double())) < 1e-5


def test_the_head_beside_it_keeps_the_kronecker_form(build):
    model, images = build("trained linear")
    part = tangent_kernel(model, images).groups["label_mapping"]
    with torch.no_grad():
        features = model.backbone_outputs(images)
    torch.testing.assert_close(part.dense(), torch.kron(features @ features.T + 1, torch.eye(C).double()))


def test_predicts_one_gradient_step(build):
    model, images = build("trained linear")
    rows = jacobian(model, images)
    kernel, before = empirical_ntk(model, images), model(images)
    loss = nn.functional.cross_entropy(before, torch.arange(N) % C)
    slope = torch.autograd.grad(loss, before, retain_graph=True)[0]
    gradients = torch.autograd.grad(loss, model.adapter_parameters())
    step = 1e-4 / float(rows.square().sum())
    with torch.no_grad():
        for parameter, gradient in zip(model.adapter_parameters(), gradients, strict=True):
            parameter -= step * gradient
        change = model(images) - before
    assert relative_error(change, -step * (kernel @ slope.flatten()).view(N, C)) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_samples_permutes_the_kernel(build, kind):
    model, images = build()
    order = torch.tensor([3, 0, 4, 1, 2])
    rows = (order[:, None] * C + torch.arange(C)).flatten() if kind == "full" else order
    kernel = empirical_ntk(model, images, kind=kind)
    torch.testing.assert_close(empirical_ntk(model, images[order], kind=kind), kernel[rows][:, rows])


def test_duplicating_a_sample_leaves_the_rank_unchanged(build):
    model, images = build()
    rank = torch.linalg.matrix_rank(empirical_ntk(model, images), hermitian=True)
    doubled = empirical_ntk(model, torch.cat([images, images[:1]]))
    assert torch.linalg.matrix_rank(doubled, hermitian=True) == rank


def test_trace_of_the_full_kernel_is_c_times_that_of_the_trace_kernel(build):
    model, images = build()
    full, trace = empirical_ntk(model, images), empirical_ntk(model, images, kind="trace")
    torch.testing.assert_close(full.trace(), C * trace.trace())


def test_rank_is_at_most_the_number_of_parameters(build):
    model, images = build()
    kernel = tangent_kernel(model, images)
    rank = torch.linalg.matrix_rank(kernel.total().matrix, hermitian=True)
    assert rank <= kernel.n_parameters == sum(p.numel() for p in model.input_transform.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_columns_in_slices_under_a_small_cap_give_the_same_kernel(build, kind):
    model, images = build()
    side, n_rows = (N * C if kind == "full" else N), (1 if kind == "pseudo" else C)
    columns = max(100, sum(parameter.numel() for parameter in model.input_transform.parameters()) // 7)
    cap = 8 * side**2 + 3 * 8 * N**2 + 8 * N * n_rows * columns
    torch.testing.assert_close(
        empirical_ntk(model, images, kind=kind, memory_cap=cap), empirical_ntk(model, images, kind=kind)
    )


def test_non_finite_image_is_named(build):
    model, images = build()
    images[4] = float("nan")
    with pytest.raises(KernelError, match=r"sample 4 is not finite \(output 0, parameter input_transform\."):
        empirical_ntk(model, images)


def test_fully_connected_is_the_product_of_image_and_gradient_kernels(reprogrammed):
    """`(x . x' + 1) J_in(a(x)) J_in(a(x'))^T`, written out."""
    framed = reprogrammed("frequent")
    transform = FullyConnectedSpec().build(framed.backbone.preprocessing)
    model = ReprogrammedModel(transform, framed.backbone, framed.label_mapping).double()
    images = torch.rand(N, 3, 12, 12, dtype=torch.float64)
    canvases = transform(images).detach().requires_grad_()
    values = model.label_mapping(model.backbone(canvases, "source_logits"))
    rows = [torch.autograd.grad(column.sum(), canvases, retain_graph=True)[0] for column in values.unbind(1)]
    inputs = torch.stack(rows, dim=1).flatten(2).flatten(0, 1)
    weights = (images.flatten(1) @ images.flatten(1).T + 1).repeat_interleave(C, 0).repeat_interleave(C, 1)
    torch.testing.assert_close(empirical_ntk(model, images), weights * (inputs @ inputs.T))


def test_a_full_map_takes_less_memory_than_its_weights(reprogrammed):
    framed = reprogrammed("frequent")
    transform = FullyConnectedSpec(image_size=12).build(framed.backbone.preprocessing)
    model = ReprogrammedModel(transform, framed.backbone, framed.label_mapping).double()
    images = torch.rand(N, 3, 12, 12, dtype=torch.float64)
    n_parameters = sum(parameter.numel() for parameter in transform.parameters())
    cap = 8 * (N * C * 432 + N * 433 + (N * C) ** 2 + N**2)
    assert cap < 8 * n_parameters
    empirical_ntk(model, images, memory_cap=cap)


def test_slices_cover_every_column_once_in_order():
    assert column_slices([5, 0, 3], 4) == [[(0, slice(0, 4))], [(0, slice(4, 5)), (2, slice(0, 3))]]
    assert column_slices([3], 10) == [[(0, slice(0, 3))]]

"""The fast paths of a reprogrammed model against the general one."""

import pytest
import torch

from mr_core.errors import KernelError
from mr_core.input_transforms.module import InputTransform
from mr_core.ntk import empirical_ntk, tangent_kernel
from mr_core.ntk.jacobian import jacobian_kernel
from mr_core.ntk.precision import exact_arithmetic
from mr_core.reprogrammed import ReprogrammedModel

KINDS = ["full", "trace", "pseudo"]
MAPPINGS = ["frequent", "text", "linear", "trained linear"]


def general_kernel(model, images, kind="full"):
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with exact_arithmetic(model):
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_equals_the_general_path(reprogrammed, images, mapping, kind, dtype, tolerance):
    model = reprogrammed(mapping, dtype=dtype)
    found = empirical_ntk(model, images, kind=kind)
    assert found.dtype == torch.float64
    assert relative_error(found, general_kernel(model, images, kind)) < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_linear_head_without_a_prompt_equals_the_general_path(reprogrammed, kind):
    model = reprogrammed("linear", framed=False)
    images = torch.rand(6, 3, 12, 12, dtype=torch.float64)
    assert relative_error(empirical_ntk(model, images, kind=kind), general_kernel(model, images, kind)) < 1e-10


def test_groups_add_up_and_are_kept(reprogrammed, images):
    model = reprogrammed("trained linear")
    kernel = tangent_kernel(model, images)
    assert set(kernel.groups) == {"input_transform", "label_mapping"}
    assert kernel.groups["label_mapping"].matrix.shape == (6, 6)
    assert kernel.n_parameters == 3 * (144 - 36) + 3 * 7
    expected = kernel.groups["input_transform"].dense() + kernel.groups["label_mapping"].dense()
    torch.testing.assert_close(kernel.total().dense(), expected)


def test_an_untrained_linear_head_leaves_the_prompt_without_effect(reprogrammed, images):
    kernel = tangent_kernel(reprogrammed("linear"), images)
    assert kernel.groups["input_transform"].trace == 0
    assert kernel.total().copies == 3  # the Kronecker form survives the sum
    assert kernel.total().matrix.shape == (6, 6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapping", ["frequent", "text"])
def test_columns_in_slices_under_a_small_cap_give_the_same_kernel(reprogrammed, images, mapping, kind):
    model = reprogrammed(mapping)
    n_outputs = model.label_mapping.matrix().shape[1]
    side = 6 * n_outputs if kind == "full" else 6
    column = 8 * 6 * (1 if kind == "pseudo" else n_outputs)
    capped = empirical_ntk(model, images, kind=kind, memory_cap=8 * side**2 + 25 * column)
    torch.testing.assert_close(capped, empirical_ntk(model, images, kind=kind))


def test_over_the_cap_names_the_cheaper_kinds(reprogrammed, images):
    with pytest.raises(KernelError, match="take the kernel 'trace' or 'pseudo'"):
        empirical_ntk(reprogrammed("frequent"), images, memory_cap=2000)


def test_one_group_alone_where_the_other_does_not_train(reprogrammed, images):
    model = reprogrammed("trained linear")
    both = tangent_kernel(model, images)
    model.label_mapping.requires_grad_(False)
    torch.testing.assert_close(empirical_ntk(model, images), both.groups["input_transform"].dense())
    head = list(model.label_mapping.parameters())
    torch.testing.assert_close(empirical_ntk(model, images, parameters=head), both.groups["label_mapping"].dense())


def test_part_of_a_group_takes_the_general_path(reprogrammed, images):
    model = reprogrammed("trained linear")
    with_bias_only = empirical_ntk(model, images, parameters=[model.label_mapping.bias])
    torch.testing.assert_close(with_bias_only, torch.eye(3, dtype=torch.float64).repeat(6, 6))


def test_nothing_to_train_without_prompt_or_head(reprogrammed):
    with pytest.raises(KernelError, match="nothing to train"):
        empirical_ntk(reprogrammed("frequent", framed=False), torch.rand(2, 3, 12, 12, dtype=torch.float64))


class Gain(InputTransform):
    """Multiplies the image: its Jacobian depends on the sample, so it no factors are known."""

    def __init__(self):
        super().__init__(image_size=12, canvas_size=12)
        self.gain = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images):
        return images * self.gain


@pytest.mark.parametrize("kind", KINDS)
def test_a_transform_without_a_shortcut_takes_the_general_path(reprogrammed, kind):
    framed = reprogrammed("trained linear")
    model = ReprogrammedModel(Gain(), framed.backbone, framed.label_mapping).double()
    images = torch.rand(5, 3, 12, 12, dtype=torch.float64)
    assert relative_error(empirical_ntk(model, images, kind=kind), general_kernel(model, images, kind)) < 1e-10


def test_non_finite_jacobian_names_sample_and_parameter(reprogrammed, images):
    model = reprogrammed("frequent")
    images[4] = float("nan")
    with pytest.raises(KernelError, match=r"sample 4 is not finite .*input_transform\.delta"):
        empirical_ntk(model, images)


def test_the_backbone_gets_no_gradient_and_does_not_change(reprogrammed, images):
    model = reprogrammed("trained linear")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    empirical_ntk(model, images)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_progress_is_told_at_least_once_a_batch(reprogrammed, images):
    seen = []
    tangent_kernel(reprogrammed("frequent"), images.repeat(6, 1, 1, 1), on_progress=lambda *done: seen.append(done))
    assert seen[-1] == (36, 36)
    assert seen == sorted(seen)
    assert len(seen) >= 3

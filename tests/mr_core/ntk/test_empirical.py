"""The checks that every implementation of an empirical kernel must pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.ntk import empirical_ntk, tangent_kernel

REFERENCES = Path(__file__).parents[2] / "references"


def perceptron(n_inputs=4, n_outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(n_inputs, 7), nn.Tanh(), nn.Linear(7, n_outputs)).double()


def samples(n=5, width=4, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_kernel(module, inputs, parameters=None):
    """One backward pass per sample and output, inner products in a double loop."""
    parameters = list(module.parameters()) if parameters is None else parameters
    rows = []
    for sample in inputs:
        for value in module(sample[None])[0]:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows.append([gradient for gradient in gradients if gradient is not None])
    kernel = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, left in enumerate(rows):
        for j, right in enumerate(rows):
            kernel[i, j] = sum((a * b).sum() for a, b in zip(left, right, strict=True))
    return kernel


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_equals_a_naive_double_loop():
    module, inputs = perceptron(), samples()
    assert relative_error(empirical_ntk(module, inputs), naive_kernel(module, inputs)) < 1e-10


def test_rows_are_sample_major():
    module, inputs = perceptron(), samples()
    kernel = empirical_ntk(module, inputs)
    first = torch.autograd.grad(module(inputs)[1, 2], module.parameters())
    second = torch.autograd.grad(module(inputs)[4, 0], module.parameters())
    expected = sum((a * b).sum() for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(kernel[1 * 3 + 2, 4 * 3 + 0], expected)


def test_equals_the_kronecker_form_for_a_linear_head():
    torch.manual_seed(0)
    features = samples(6, 4)
    base = features @ features.T + 1
    kernel = empirical_ntk(nn.Linear(4, 3).double(), features)
    torch.testing.assert_close(kernel, torch.kron(base, torch.eye(3, dtype=torch.float64)))


@pytest.mark.parametrize("step", [1e-3, 1e-4])
def test_predicts_one_gradient_step(step):
    module, inputs = perceptron(), samples()
    targets = torch.tensor([0, 1, 2, 0, 1])
    kernel = empirical_ntk(module, inputs)
    before = module(inputs)
    gradient = torch.autograd.grad(nn.functional.cross_entropy(before, targets), before, retain_graph=True)[0]
    loss_gradients = torch.autograd.grad(nn.functional.cross_entropy(before, targets), list(module.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(module.parameters(), loss_gradients, strict=True):
            parameter -= step * slope
    change = module(inputs).detach() - before.detach()
    predicted = -step * (kernel @ gradient.flatten()).view_as(change)
    assert relative_error(change, predicted) < 5 * step


@pytest.mark.parametrize("kind", ["full", "trace", "pseudo"])
def test_permuting_samples_permutes_the_kernel(kind):
    module, inputs = perceptron(), samples()
    order = torch.tensor([3, 0, 4, 1, 2])
    rows = (order[:, None] * 3 + torch.arange(3)).flatten() if kind == "full" else order
    kernel = empirical_ntk(module, inputs, kind=kind)
    torch.testing.assert_close(empirical_ntk(module, inputs[order], kind=kind), kernel[rows][:, rows])


def test_duplicating_a_sample_leaves_the_rank_unchanged():
    module, inputs = perceptron(), samples()
    doubled = torch.cat([inputs, inputs[:1]])
    rank = torch.linalg.matrix_rank(empirical_ntk(module, inputs), hermitian=True)
    assert torch.linalg.matrix_rank(empirical_ntk(module, doubled), hermitian=True) == rank


def test_trace_of_the_full_kernel_is_c_times_that_of_the_trace_kernel():
    module, inputs = perceptron(), samples()
    full, trace = empirical_ntk(module, inputs), empirical_ntk(module, inputs, kind="trace")
    torch.testing.assert_close(full.trace(), 3 * trace.trace())
    torch.testing.assert_close(trace, full.view(5, 3, 5, 3).diagonal(dim1=1, dim2=3).mean(-1))


def test_pseudo_kernel_is_that_of_the_scaled_sum_of_outputs():
    module, inputs = perceptron(), samples()
    full = empirical_ntk(module, inputs).view(5, 3, 5, 3)
    torch.testing.assert_close(empirical_ntk(module, inputs, kind="pseudo"), full.sum((1, 3)) / 3)


def test_rank_is_at_most_the_number_of_parameters():
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3)).double()
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    kernel = empirical_ntk(module, samples(10, 2))
    assert torch.linalg.matrix_rank(kernel, hermitian=True) <= n_parameters < len(kernel)


def test_products_with_a_vector_match_the_matrix():
    module, inputs, vector = perceptron(), samples(), samples(1, 15, seed=9)[0].requires_grad_()
    parameters = list(module.parameters())
    pulled = torch.autograd.grad(module(inputs).flatten(), parameters, vector, create_graph=True)
    # J w is the derivative of <J^T v, w> by v
    paired = sum((part * part.detach()).sum() for part in pulled)
    (pushed,) = torch.autograd.grad(paired, vector)
    torch.testing.assert_close(empirical_ntk(module, inputs) @ vector.detach(), pushed)


class Erf(nn.Module):
    def forward(self, values):
        return torch.erf(values)


def with_weights(module, reference):
    layers = [layer for layer in module if hasattr(layer, "weight")]
    for index, layer in enumerate(layers):
        layer.weight.data = torch.from_numpy(reference[f"w{index}"])
        layer.bias.data = torch.from_numpy(reference[f"b{index}"])
    return module


@pytest.mark.parametrize("kind", ["full", "trace"])
def test_perceptron_matches_neural_tangents(kind):
    reference = np.load(REFERENCES / "ntk_mlp_a.npz")
    layers = [nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 24), Erf(), nn.Linear(24, 3)]
    module = with_weights(nn.Sequential(*layers), reference)
    inputs, expected = torch.from_numpy(reference["x"]), torch.from_numpy(reference["kernel"])
    torch.testing.assert_close(module(inputs).detach(), torch.from_numpy(reference["outputs"]))
    if kind == "trace":
        expected = expected.view(7, 3, 7, 3).diagonal(dim1=1, dim2=3).mean(-1)
    assert relative_error(empirical_ntk(module, inputs, kind=kind), expected) < 1e-9


def test_convolutional_network_matches_neural_tangents():
    reference = np.load(REFERENCES / "ntk_cnn_a.npz")
    inputs = torch.from_numpy(reference["x"])
    expected_outputs = torch.from_numpy(reference["outputs"])
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    module = with_weights(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), reference)
    torch.testing.assert_close(module(inputs).detach(), expected_outputs)
    assert relative_error(empirical_ntk(module, inputs), torch.from_numpy(reference["kernel"])) < 1e-9


def test_takes_only_the_parameters_asked_for():
    module, inputs = perceptron(), samples()
    last = list(module[2].parameters())
    expected = naive_kernel(module, inputs, last)
    torch.testing.assert_close(empirical_ntk(module, inputs, parameters=last), expected)
    module[0].requires_grad_(False)
    torch.testing.assert_close(empirical_ntk(module, inputs), expected)


def test_refuses_a_model_with_nothing_to_train():
    with pytest.raises(KernelError, match="nothing to train"):
        empirical_ntk(perceptron().requires_grad_(False), samples())


def test_refuses_a_tensor_that_is_no_parameter_of_the_module():
    with pytest.raises(ValueError, match="not parameters of the module"):
        empirical_ntk(perceptron(), samples(), parameters=[torch.zeros(3)])


def test_is_taken_in_eval_mode_and_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2)).double()
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    kernel = empirical_ntk(module, samples())
    torch.testing.assert_close(kernel, empirical_ntk(module, samples()), rtol=0, atol=0)
    assert [part.training for part in module] == [True, False, True, True]
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


class CountsItself(nn.Module):
    """Reads a value out of a tensor, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, inputs):
        return self.linear(inputs) * (2.0 if float(inputs.sum()) > 0 else 1.0)


def test_falls_back_to_a_loop_where_vmap_cannot_trace_the_module():
    module, inputs = CountsItself().double(), samples()
    torch.testing.assert_close(empirical_ntk(module, inputs), naive_kernel(module, inputs))


def test_half_precision_is_computed_in_single():
    module, inputs = perceptron(), samples()
    rounded = perceptron().bfloat16().double()
    found = empirical_ntk(module.bfloat16(), inputs)
    assert found.dtype == torch.float64
    assert relative_error(found, empirical_ntk(rounded, inputs)) < 1e-5


def test_is_symmetric_to_the_last_bit():
    kernel = empirical_ntk(perceptron().float(), samples(400))
    assert torch.equal(kernel, kernel.T)


def test_groups_of_parameters_under_a_small_cap_give_the_same_kernel():
    module, inputs = perceptron(), samples()
    largest_block = 28 * 15 * 8
    capped = empirical_ntk(module, inputs, memory_cap=15 * 15 * 8 + largest_block)
    torch.testing.assert_close(capped, empirical_ntk(module, inputs))


@pytest.mark.parametrize(("kind", "cheaper"), [("full", "'trace' or 'pseudo'"), ("trace", "'pseudo'")])
def test_over_the_cap_names_need_cap_and_the_cheaper_kinds(kind, cheaper):
    with pytest.raises(KernelError, match=rf"needs .* MiB and the cap is 0\.00 MiB: take the kernel {cheaper}"):
        empirical_ntk(perceptron(), samples(), kind=kind, memory_cap=1000)


def test_non_finite_jacobian_names_sample_and_layer():
    inputs = samples()
    inputs[3, 2] = float("nan")
    with pytest.raises(KernelError, match=r"sample 3 is not finite \(output 0, layer 0\)"):
        empirical_ntk(perceptron(), inputs)
    with pytest.raises(KernelError, match=r"sample 3 is not finite \(output 0, parameter 0\.0\.weight\)"):
        empirical_ntk(nn.Sequential(perceptron(), nn.LayerNorm(3)).double(), inputs)


def test_progress_may_stop_the_computation():
    class Stopped(Exception):
        pass

    def stop(done, total):
        assert total == 40
        raise Stopped

    with pytest.raises(Stopped):
        tangent_kernel(perceptron(), samples(40), on_progress=stop)

"""Kernels of label mappings from one source kernel, against the kernels of the whole models."""

import pytest
import torch

from mr_core.errors import KernelError
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.label_mappings.bayesian.spec import BayesianSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.ntk import tangent_kernel
from mr_core.ntk.sandwich import mapped_kernels, read_by, source_kernel
from mr_core.reprogrammed import ReprogrammedModel

KINDS = ["full", "trace", "pseudo"]
LABELS = torch.arange(6) % 3


@pytest.fixture
def model(reprogrammed):
    return reprogrammed("frequent")


def of_source_logits(backbone):
    """Mappings that all read source logits, one of them with parameters of its own."""
    many = FrequentSpec(sources_per_class=2).build(backbone, ["a", "b", "c"])
    bayesian = BayesianSpec().build(backbone, ["a", "b", "c"])
    bayesian.omega.copy_(torch.rand(7, 3, generator=torch.Generator().manual_seed(6)))
    linear = LinearMapping(width=7, n_targets=4, reads="source_logits")
    torch.nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(7))
    mappings = {"one": FrequentSpec().build(backbone, ["a", "b"]), "many": many, "dense": bayesian, "linear": linear}
    return {name: mapping.double() for name, mapping in mappings.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_kernels_of_the_whole_models(model, images, kind):
    mappings = of_source_logits(model.backbone)
    source = source_kernel(model.input_transform, model.backbone, images, reads="source_logits")
    for name, found in mapped_kernels(source, mappings, kind=kind).items():
        expected = tangent_kernel(
            ReprogrammedModel(model.input_transform, model.backbone, mappings[name]), images, kind=kind
        )
        assert found.groups.keys() == expected.groups.keys()
        for group, part in found.groups.items():
            torch.testing.assert_close(part.dense(), expected.groups[group].dense())
        assert (found.n_parameters, found.n_outputs) == (expected.n_parameters, expected.n_outputs)


def test_equals_the_product_written_out(model, images):
    mapping = of_source_logits(model.backbone)["dense"]
    source = source_kernel(model.input_transform, model.backbone, images, reads="source_logits")
    outer = torch.kron(torch.eye(6).double(), mapping.omega)
    expected = outer.T @ source.matrix @ outer
    torch.testing.assert_close(source.mapped(mapping).total().dense(), expected)


def test_a_mapping_fitted_on_the_outputs_of_the_source_kernel(model, images):
    source = source_kernel(model.input_transform, model.backbone, images, reads="source_logits")
    mapping = model.label_mapping
    mapping.fit(source.outputs, LABELS)
    torch.testing.assert_close(source.mapped(mapping).total().dense(), tangent_kernel(model, images).total().dense())


def test_only_the_sources_that_are_read(model, images):
    mappings = of_source_logits(model.backbone)
    chosen = {name: mappings[name] for name in ("one", "many")}
    sources = read_by(chosen)
    assert sources == [0, 1, 2, 3, 4, 5]
    few = source_kernel(model.input_transform, model.backbone, images, reads="source_logits", sources=sources[::-1])
    assert few.matrix.shape == (36, 36)
    every = source_kernel(model.input_transform, model.backbone, images, reads="source_logits")
    for mapping in chosen.values():
        torch.testing.assert_close(few.mapped(mapping).total().dense(), every.mapped(mapping).total().dense())
    with pytest.raises(
        KernelError, match=r"reads 1 outputs that the source kernel lacks \(6\); expected some of its 6"
    ):
        few.mapped(mappings["dense"])


def test_text_and_embedding_have_kernels_of_their_own(reprogrammed, images):
    for name in ("text", "trained linear"):
        model = reprogrammed(name)
        source = source_kernel(model.input_transform, model.backbone, images, reads=model.label_mapping.reads)
        expected = tangent_kernel(model, images).total().dense()
        torch.testing.assert_close(source.mapped(model.label_mapping).total().dense(), expected)


def test_refuses_a_mapping_of_another_output(model, reprogrammed, images):
    source = source_kernel(model.input_transform, model.backbone, images, reads="source_logits")
    with pytest.raises(KernelError, match="reads image_text, expected source_logits"):
        source.mapped(reprogrammed("text").label_mapping)
    with pytest.raises(KernelError, match="reads 9 outputs, expected 7"):
        source.mapped(LinearMapping(width=9, n_targets=2, reads="source_logits"))


@pytest.mark.parametrize("sources", [[], [1, 1], [7], [-1, 2]])
def test_refuses_sources_that_are_none(model, images, sources):
    with pytest.raises(KernelError, match="expected different numbers from 0 to 6"):
        source_kernel(model.input_transform, model.backbone, images, reads="source_logits", sources=sources)


def test_refuses_a_transform_with_nothing_to_train(model):
    transform = IdentitySpec().build(model.backbone.preprocessing)
    with pytest.raises(KernelError, match="nothing to train"):
        source_kernel(transform, model.backbone, torch.rand(2, 3, 12, 12).double(), reads="source_logits")


def test_over_the_cap_names_the_need(model, images):
    source = source_kernel(model.input_transform, model.backbone, images, reads="source_logits")
    with pytest.raises(KernelError, match="sandwich of the full kernel needs"):
        source.mapped(model.label_mapping, memory_cap=100)

"""Decoupled prompts with their groups of texts, against loops over views, classes and texts."""

import pytest
import torch
from torch.nn import functional

from mr_core.errors import SpecError
from mr_core.input_transforms.decoupled.spec import DecoupledSpec
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.label_mappings.probabilistic_reweighting.mapping import ProbabilisticReweightingMapping
from mr_core.label_mappings.probabilistic_reweighting.spec import ProbabilisticReweightingSpec
from mr_core.ntk import tangent_kernel
from mr_core.reprogrammed import ReprogrammedModel

C, M, D, V = 3, 4, 6, 2
LABELS = torch.arange(30) % C


def _texts():
    return functional.normalize(torch.randn(C, M, D, generator=torch.Generator().manual_seed(0)), dim=2)


def _mapping(texts, **options):
    return ProbabilisticReweightingMapping(
        top_k=2, n_targets=C, n_texts=M, width=D, embed=lambda: texts, views=V, **options
    )


def _by_hand(outputs, texts, groups, labels):
    """Weights and logits by the paper's counts, from the views `(n, v, d)`."""
    weights, logits = torch.zeros(C, M), torch.zeros(len(outputs), C)
    for views, label in zip(outputs, labels.tolist(), strict=True):
        scores = [float(views[groups[label][m]] @ texts[label, m]) for m in range(M)]
        for near in sorted(range(M), key=lambda m: -scores[m])[:2]:
            weights[label, near] += 1
    weights /= weights.sum(1, keepdim=True)
    for i, views in enumerate(outputs):
        for c in range(C):
            logits[i, c] = sum(weights[c, m] * (views[groups[c][m]] @ texts[c, m]) for m in range(M))
    return weights, logits


@pytest.mark.parametrize("given", [[0, 1, 1, 0], None])
def test_each_text_is_scored_by_the_view_of_its_group(given):
    texts = _texts()
    outputs = torch.randn(30, V, D, generator=torch.Generator().manual_seed(1))
    mapping = _mapping(texts, groups=given)
    mapping.fit(outputs.flatten(1), LABELS)
    groups = mapping.groups.tolist()
    assert groups == [given] * C if given else {g for of in groups for g in of} == {0, 1}
    weights, logits = _by_hand(outputs, texts, groups, LABELS)
    torch.testing.assert_close(mapping.weights, weights)
    torch.testing.assert_close(mapping(outputs.flatten(1)), logits)


def test_clusters_are_of_texts_that_lie_together():
    directions = torch.eye(D)[:2]
    sides = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    texts = functional.normalize(directions[sides] + 0.05 * _texts(), dim=2)
    mapping = _mapping(texts)
    mapping.fit(torch.randn(30, V * D, generator=torch.Generator().manual_seed(1)), LABELS)
    found = mapping.groups
    assert torch.equal(found, sides) or torch.equal(found, 1 - sides)


def test_views_of_an_image_follow_one_another(tiny_backbone):
    transform = DecoupledSpec(prompts=3).build(tiny_backbone.preprocessing)
    with torch.no_grad():
        for index, frame in enumerate(transform.frames()):
            frame.delta.fill_(float(index))
    images = torch.rand(2, 3, transform.image_size, transform.image_size)
    canvases = transform(images)
    expected = torch.stack([frame(image[None])[0] for image in images for frame in transform.frames()])
    assert torch.equal(canvases, expected)
    assert transform.picture().shape == (3, 12, 36)


def test_the_whole_model_has_the_kernel_of_its_jacobian(tiny_backbone):
    names = ("ant", "bee", "cow")
    mapping = ProbabilisticReweightingSpec(clusters=2).build(tiny_backbone, names)
    transform = DecoupledSpec(prompts=2).build(tiny_backbone.preprocessing)
    model = ReprogrammedModel(transform, tiny_backbone, mapping).double()
    assert model.batch_limit == 2
    images = torch.rand(5, 3, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mapping.fit(model.backbone_outputs(images).detach(), torch.arange(5) % 3)
    kernel = tangent_kernel(model, images)
    rows = []
    for image in images:
        logits = model(image[None])[0]
        for index in range(len(logits)):
            gradients = torch.autograd.grad(logits[index], model.adapter_parameters(), retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    torch.testing.assert_close(kernel.total().dense(), jacobian @ jacobian.T, rtol=1e-9, atol=1e-12)


def test_as_many_views_as_groups_are_asked_for(tiny_backbone):
    mapping = ProbabilisticReweightingSpec(clusters=2).build(tiny_backbone, ("ant", "bee"))
    for spec in (IdentitySpec(), DecoupledSpec(prompts=3)):
        with pytest.raises(SpecError, match=f"gives {spec.views} views .* reads 2"):
            ReprogrammedModel(spec.build(tiny_backbone.preprocessing), tiny_backbone, mapping)


def test_causes_are_groups_of_given_texts():
    shape = {"ant": ("an oval", "six legs"), "bee": ("a disc",)}
    spec = ProbabilisticReweightingSpec(causes=(shape, ("a photo of a {}.",)))
    assert spec.views == 2
    texts, groups = spec.sentences(("ant", "bee"))
    assert texts == [["an oval", "a photo of a ant."], ["a disc", "a photo of a bee."]]
    assert groups == [0, 1]
    with pytest.raises(SpecError, match="no texts for 'cow'") as refused:
        spec.check(("ant", "bee", "cow"))
    assert refused.value.param == "label_mapping.causes.0"


@pytest.mark.parametrize("other", [{"clusters": 2}, {"templates": ("a {}.",)}])
def test_causes_leave_no_room_for_clusters(other):
    with pytest.raises(ValueError, match="causes are the texts and their groups"):
        ProbabilisticReweightingSpec(causes=("clip",), **other)


def test_more_clusters_than_texts_are_refused():
    with pytest.raises(SpecError, match="3 clusters of 2 texts"):
        ProbabilisticReweightingSpec(templates=("a {}.",), clusters=3).check(("ant", "bee"))

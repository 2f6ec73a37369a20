import torch

from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.label_mappings.linear.spec import LinearSpec


def test_is_an_affine_map():
    mapping = LinearMapping(width=3, n_targets=2, reads="embedding")
    with torch.no_grad():
        mapping.weight.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
        mapping.bias.copy_(torch.tensor([10.0, 20]))
    assert mapping(torch.tensor([[1.0, 0, -1]])).tolist() == [[8.0, 18.0]]


def test_starts_uniform():
    mapping = LinearMapping(width=3, n_targets=4, reads="embedding")
    assert mapping(torch.randn(5, 3)).softmax(1).unique().tolist() == [0.25]


def test_reads_what_the_spec_says(tiny_backbone):
    assert LinearSpec(on="embedding").build(tiny_backbone, ["a", "b"]).weight.shape == (2, 6)
    assert LinearSpec(on="source_logits").build(tiny_backbone, ["a", "b"]).weight.shape == (2, 7)

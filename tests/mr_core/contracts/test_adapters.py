"""An adapter of every method is the same classifier once it is a file, and stands on its own backbone alone."""

import pytest
import torch

from mr_core.adapter import load_adapter, save_adapter
from mr_core.adapter_file import zip_adapter
from mr_core.errors import BackboneError
from mr_core.input_transforms import INPUT_TRANSFORMS
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.label_mappings import LABEL_MAPPINGS
from mr_core.label_mappings.linear.spec import LinearSpec
from mr_core.label_mappings.probabilistic_reweighting.spec import ProbabilisticReweightingSpec
from mr_core.reprogrammed import ReprogrammedModel
from tests.mr_core.conftest import make_tiny_backbone

CLASSES = ("ant", "bee", "cat", "dog")
METHODS = {
    **{kind: (spec(), LinearSpec()) for kind, spec in INPUT_TRANSFORMS.items() if spec().views == 1},
    **{kind: (IdentitySpec(), spec()) for kind, spec in LABEL_MAPPINGS.items()},
    **{
        kind: (spec(), ProbabilisticReweightingSpec(clusters=spec().views))
        for kind, spec in INPUT_TRANSFORMS.items()
        if spec().views > 1
    },
    "text scores": (IdentitySpec(), LinearSpec(on="text_scores", start="mapped")),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_the_file_of_an_adapter_is_the_adapter(method, tiny_backbone):
    transform, mapping = method
    spec = ReprogramSpec(dataset="ds_1", input_transform=transform, label_mapping=mapping)
    model = ReprogrammedModel(
        transform.build(tiny_backbone.preprocessing), tiny_backbone, mapping.build(tiny_backbone, CLASSES)
    )
    side = model.input_transform.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, side, side), dtype=torch.uint8, generator=generator)
    pixels = images.float() / 255
    model.label_mapping.fit(model.backbone_outputs(pixels).detach(), torch.arange(12) % len(CLASSES))
    with torch.no_grad():
        for parameter in model.adapter_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    content = zip_adapter(save_adapter(model, spec=spec, classes=CLASSES, record={"metrics": {}}))
    classifier = load_adapter(content, make_tiny_backbone())
    expected = model.eval()(pixels).double().softmax(1)
    torch.testing.assert_close(classifier.probabilities(images.numpy()), expected, rtol=1e-5, atol=1e-5)
    other = make_tiny_backbone(seed=1)
    other.state_sha256 = "another"
    with pytest.raises(BackboneError, match="is not the backbone this adapter was trained on"):
        load_adapter(content, other)

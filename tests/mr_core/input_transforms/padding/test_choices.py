from mr_core.input_transforms.fully_connected.spec import FullyConnectedSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.input_transforms.sequence.spec import SequenceSpec


def test_auto_leaves_six_sizes_open():
    assert [choice.image_size for choice in PaddingSpec(image_size="auto").choices(224)] == [56, 84, 112, 140, 168, 196]
    assert [choice.image_size for choice in PaddingSpec(image_size="auto").choices(8)] == [2, 3, 4, 5, 6, 7]


def test_a_size_or_none_is_settled():
    for spec in (PaddingSpec(image_size=40), PaddingSpec()):
        assert spec.choices(224) == (spec,)


def test_a_sequence_leaves_open_what_its_steps_do_and_fits():
    spec = SequenceSpec(transforms=(FullyConnectedSpec(image_size=32), PaddingSpec(image_size="auto")))
    sizes = [choice.transforms[1].image_size for choice in spec.choices(96)]
    assert sizes == [36, 48, 60, 72, 84]  # 24 has no room for the 32 pixels of the map before it

from typing import Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from mr_core.input_transforms import INPUT_TRANSFORMS
from mr_core.jobs import JOB_KINDS
from mr_core.label_mappings import LABEL_MAPPINGS
from mr_core.registry import MethodSpec, discover, tagged_union
from mr_core.scores import SCORES
from mr_core.trainers import TRAINERS


def test_finds_every_folder_with_a_spec():
    assert {"identity", "padding"} <= set(INPUT_TRANSFORMS)
    assert {"frequent", "iterative", "linear", "text"} <= set(LABEL_MAPPINGS)
    assert "gradient" in TRAINERS
    assert {"diagnose", "reprogram"} <= set(JOB_KINDS)
    assert {"leep", "logme", "kernel_target_alignment", "sliced_wasserstein"} <= set(SCORES)


def test_refuses_a_kind_used_twice():
    class Family(MethodSpec):
        """A family."""

        kind: str

    class First(Family):
        """One."""

        kind: Literal["same"] = "same"

    class Second(Family):
        """Two."""

        kind: Literal["same"] = "same"

    with pytest.raises(TypeError, match="repeats the kind 'same'"):
        discover("mr_core.trainers", Family)


def test_refuses_a_method_without_a_description():
    with pytest.raises(TypeError, match="needs a docstring"):

        class Silent(MethodSpec):
            kind: Literal["silent"] = "silent"


def test_tells_the_members_of_a_family_apart_by_kind():
    adapter = TypeAdapter(tagged_union(LABEL_MAPPINGS))
    assert type(adapter.validate_python({"kind": "linear"})) is LABEL_MAPPINGS["linear"]
    with pytest.raises(ValidationError, match=r"union_tag_invalid|does not match any of the expected tags"):
        adapter.validate_python({"kind": "no such mapping"})

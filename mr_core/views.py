"""Whether an input transform and a label mapping speak of equally many views of an image. Torch-free."""

from mr_core.errors import SpecError


def require_equal_views(given: int, read: int) -> None:
    """SpecError where a transform gives another number of views than the mapping reads."""
    if given != read:
        raise SpecError(
            f"the input transform gives {given} views of an image, and the label mapping reads {read}: `prompts` of "
            "the transform decoupled and the groups of texts of the mapping probabilistic_reweighting must be as many",
            param="label_mapping",
        )

"""Several texts for each class: what the mappings onto texts choose among or weigh. Torch-free."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from mr_core.backbones.description import Output
from mr_core.errors import SpecError
from mr_core.label_mappings.text.spec import Template
from mr_core.registry import MethodSpec

MOST_TEXTS: Final = 100_000


class Described(MethodSpec):
    """Texts made of templates and class names."""

    templates: Literal["clip"] | Annotated[tuple[Template, ...], Field(min_length=1, max_length=1000)] = Field(
        "clip",
        description="`{}` stands for the class name; `clip` are the 80 of CLIP's ensemble for ImageNet and `This is a "
        "photo of a {}.`, 81 in all.",
    )

    @property
    def reads(self) -> Output:
        return "image_text"

    def n_templates(self, n_targets: int) -> int:
        """How many texts a class has; SpecError where all would be too many to embed."""
        n = 81 if self.templates == "clip" else len(self.templates)
        if n * n_targets > MOST_TEXTS:
            raise SpecError(
                f"{n} templates x {n_targets} classes are {n * n_targets} texts, at most {MOST_TEXTS} are embedded",
                param="label_mapping.templates",
            )
        return n


def texts_of(templates: Literal["clip"] | Sequence[str], classes: Sequence[str]) -> list[list[str]]:
    """The texts of each class, in the order of the templates; underscores of names read as spaces."""
    chosen = clip_templates() if templates == "clip" else templates
    return [[template.format(name.replace("_", " ")) for template in chosen] for name in classes]


def clip_templates() -> list[str]:
    """The 80 templates of CLIP's ImageNet ensemble as open_clip ships them, and the one of arXiv:2203.17274."""
    from mr_core.torchvision_compat import declare_missing_operators

    declare_missing_operators()
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return [*(template("{}") for template in OPENAI_IMAGENET_TEMPLATES), "This is a photo of a {}."]

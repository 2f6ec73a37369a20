"""Several texts for each class: what the mappings onto texts choose among or weigh. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from mr_core.backbones.description import Output
from mr_core.errors import SpecError
from mr_core.label_mappings.text.spec import Template
from mr_core.registry import MethodSpec

MOST_TEXTS: Final = 100_000

Templates = Literal["clip"] | Annotated[tuple[Template, ...], Field(min_length=1, max_length=1000)]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=500)]
ClassTexts = dict[str, Annotated[tuple[Sentence, ...], Field(min_length=1, max_length=1000)]]


class Described(MethodSpec):
    """Texts made of templates and class names."""

    templates: Templates = Field(
        "clip",
        description="`{}` stands for the class name; `clip` are the 80 of CLIP's ensemble for ImageNet and `This is a "
        "photo of a {}.`, 81 in all.",
    )

    @property
    def reads(self) -> Output:
        return "image_text"

    def n_templates(self, n_targets: int) -> int:
        """How many texts a class has; SpecError where all would be too many to embed."""
        n = n_templates(self.templates)
        require_few_texts(n, n_targets, param="label_mapping.templates")
        return n

    def check(self, classes: Sequence[str]) -> None:
        """SpecError where the texts would be too many."""
        self.n_templates(len(classes))


def n_templates(templates: Templates) -> int:
    """How many there are."""
    return 81 if templates == "clip" else len(templates)


def require_few_texts(n: int, n_targets: int, *, param: str) -> None:
    """SpecError where n texts a class are too many to embed."""
    if n * n_targets > MOST_TEXTS:
        raise SpecError(
            f"{n} templates x {n_targets} classes are {n * n_targets} texts, at most {MOST_TEXTS} are embedded",
            param=param,
        )


def require_texts_of(texts: Mapping[str, Sequence[str]], classes: Sequence[str], *, at_least: int, param: str) -> None:
    """SpecError naming classes without texts, with fewer than so many, and names that are no class."""
    missing = [name for name in classes if name not in texts]
    unknown = [name for name in texts if name not in classes]
    few = [name for name in classes if name in texts and len(texts[name]) < at_least]
    if missing:
        raise SpecError(
            f"no texts for {_listed(missing)}; expected some for each of {len(classes)} classes", param=param
        )
    if unknown:
        raise SpecError(f"texts for {_listed(unknown)}, which the dataset has no classes of", param=param)
    if few:
        raise SpecError(f"{len(texts[few[0]])} texts for {_listed(few)}; expected at least {at_least}", param=param)


def texts_of(templates: Templates, classes: Sequence[str]) -> list[list[str]]:
    """The texts of each class, in the order of the templates; underscores of names read as spaces."""
    chosen = clip_templates() if templates == "clip" else templates
    return [[template.replace("{}", name.replace("_", " ")) for template in chosen] for name in classes]


def clip_templates() -> list[str]:
    """The 80 templates of CLIP's ImageNet ensemble as open_clip ships them, and the one of arXiv:2203.17274."""
    from mr_core.torchvision_compat import declare_missing_operators

    declare_missing_operators()
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return [*(template("{}") for template in OPENAI_IMAGENET_TEMPLATES), "This is a photo of a {}."]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

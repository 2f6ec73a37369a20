"""One helper for every family of methods: finds the specs, and joins them into a tagged union."""

import importlib
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class MethodSpec(BaseModel):
    """Hyper-parameters of one method; `kind` names it in a job spec. Torch-free."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__annotations__ and not cls.__doc__:
            raise TypeError(f"{cls.__name__} needs a docstring: it is the method's entry in GET /v1/methods")


S = TypeVar("S", bound=MethodSpec)


def discover(package: str, base: type[S]) -> dict[str, type[S]]:
    """Import `<package>/*/spec.py` and return the direct subclasses of `base`, by kind.

    Raises TypeError where two specs share a kind.
    """
    root = Path(importlib.import_module(package).__path__[0])
    for path in sorted(root.glob("*/spec.py")):
        importlib.import_module(f"{package}.{path.parent.name}.spec")
    by_kind: dict[str, type[S]] = {}
    for spec in base.__subclasses__():
        kind = spec.model_fields["kind"].default
        if by_kind.setdefault(kind, spec) is not spec:
            raise TypeError(f"{spec.__name__} repeats the kind {kind!r}")
    return dict(sorted(by_kind.items()))


def tagged_union(specs: dict[str, type[S]]) -> Any:
    """The pydantic union of a family, told apart by `kind`."""
    return Annotated[reduce(or_, specs.values()), Field(discriminator="kind")]

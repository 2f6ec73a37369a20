"""What a finished job leaves: the result for the client, and files. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mr_core.backbones.description import BackboneDescription, BackboneOutputs


@dataclass(frozen=True)
class AdapterContent:
    """The two files of an adapter."""

    config: bytes  # config.json
    weights: bytes  # adapter.safetensors


@dataclass(frozen=True)
class BackboneContent:
    """A source model that was trained here: how to build it, and its weights as one safetensors file.

    Its place, `trained:<job>`, is given to it where it is published; the description has a stand-in.
    """

    description: BackboneDescription
    weights: bytes
    parameters: int
    outputs: BackboneOutputs


@dataclass(frozen=True)
class SpectrumContent:
    """A kernel's spectrum: eigenvalues in descending order, cumulative label energy of the same length."""

    eigenvalues: NDArray[np.float64]
    label_energy: NDArray[np.float64]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Artifact:
    """A file beside the result: a plot (`plots/spectrum.svg`), the report (`report.html`)."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class JobOutcome:
    """`result` is the JSON shape of the API, ids aside.

    `file`, in the run's scratch folder, is for the job that this one is a part of; it goes when that has ended.
    """

    result: Mapping[str, Any]
    adapter: AdapterContent | None = None
    backbone: BackboneContent | None = None
    spectrum: SpectrumContent | None = None
    artifacts: Sequence[Artifact] = field(default_factory=tuple)
    file: Path | None = None

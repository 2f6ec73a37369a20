"""What the measurements over the API share: data and backbones registered once, jobs found again by their metadata."""

import io
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cli.client import TERMINAL, Client
from cli.watching import watch


def mobilenet(client: Client, data: Path, canvas: int) -> str:
    """The id of MobileNetV2 at that canvas, registered by upload where the service has none."""
    weights = data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    form = {"library": "timm", "architecture": "mobilenetv2_100", "arguments": '{"pad_type": "same"}'}
    return registered(client, f"mobilenetv2 at {canvas} px (benchmark)", weights, form, canvas=canvas)


def registered(client: Client, title: str, weights: Path, form: Mapping[str, str], *, canvas: int) -> str:
    """The id of the backbone of that name at that canvas, its weights uploaded where the service has none."""
    for backbone in client.pages("/v1/backbones"):
        if backbone["name"] == title:
            return str(backbone["id"])
    preprocessing = {"size": canvas, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    with weights.open("rb") as file:
        told = {"name": title, "preprocessing": json.dumps(preprocessing), **form}
        return str(client.upload("/v1/backbones", file, weights.name, told)["id"])


def dataset_of(client: Client, data: Path, name: str, per_class: int | None) -> str:
    """The id of a set of the test data, with at most so many training images of each class."""
    archive = data / "images" / f"{name}.zip"
    title = f"{name}, {per_class or 'all'} a class (benchmark)"
    return str(uploaded(client, title, lambda: limited(archive, per_class))["id"])


def uploaded(client: Client, title: str, archive: Callable[[], BinaryIO]) -> dict[str, Any]:
    """The dataset of that name, uploaded where the service has none."""
    for dataset in client.pages("/v1/datasets"):
        if dataset["name"] == title:
            return client.wait_for_dataset(dataset["id"])
    dataset = client.upload("/v1/datasets", archive(), "dataset.zip", {"name": title, "modality": "image"})
    return client.wait_for_dataset(dataset["id"])


def limited(path: Path, per_class: int | None) -> io.BytesIO:
    """The archive, with the first `per_class` training images of each class by name."""
    if per_class is None:
        return io.BytesIO(path.read_bytes())
    kept, counts = io.BytesIO(), Counter[str]()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(kept, "w") as target:
        for name in sorted(source.namelist()):
            split, _, rest = name.partition("/")
            if name.endswith("/"):
                continue
            label = rest.partition("/")[0]
            counts[label] += split == "train"
            if split == "test" or counts[label] <= per_class:
                target.writestr(name, source.read(name))
    kept.seek(0)
    return kept


def earlier(client: Client, labels: Mapping[str, str]) -> dict[str, Any] | None:
    """The newest job with these metadata that did not fail."""
    jobs = client.pages("/v1/jobs", **{f"metadata[{name}]": value for name, value in labels.items()})
    return next((job for job in jobs if job["status"] not in ("failed", "cancelled", "cancelling")), None)


def finished(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has succeeded, followed on the terminal until then; SystemExit where it does not."""
    done = job if job["status"] in TERMINAL else watch(client, job["id"])
    done = client.get(f"/v1/jobs/{job['id']}")
    if done["status"] != "succeeded":
        raise SystemExit(f"{done['id']}: {done['status']}: {done['error']}")
    return dict(done)


def with_error(accuracy: float, n: int) -> str:
    """Percent, and the standard error of a sample of n."""
    return f"{100 * accuracy:.1f} ± {100 * math.sqrt(accuracy * (1 - accuracy) / n):.1f}"


def percent(scores: Mapping[str, Any] | None) -> str:
    """The test accuracy of a baseline in percent."""
    return f"{100 * scores['test']['accuracy']:.1f}" if scores else "-"

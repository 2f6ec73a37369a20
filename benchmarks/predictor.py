"""Fifty adapters on one backbone against a single one: images a second through POST /predict of a running service.

    mr up &                           # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.predictor    # imports the adapters and deletes them again

Adapters of builtin/mini-clip with random label mappings and frames, made here; 4 clients at once, 16 images a request.
Both sides take turns; medians of rounds.
"""

import io
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from benchmarks.environment import describe_machine
from cli.client import Client, connect
from mr_core.adapter import save_adapter
from mr_core.adapter_file import zip_adapter
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.job_spec import JobSpec
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.reprogrammed import ReprogrammedModel

ADAPTERS, CLIENTS, IMAGES, REQUESTS, ROUNDS = 50, 4, 16, 50, 3
CLASSES = [f"class {i}" for i in range(10)]


def main() -> int:
    files = _files()
    with connect() as client:
        ids = [_import(client, content) for content in _adapters(ADAPTERS)]
        for adapter in ids:
            _predict(client, adapter, files)  # warm
        single, many = [], []
        for _ in range(ROUNDS):
            single.append(_images_per_second(client, ids[:1], files))
            many.append(_images_per_second(client, ids, files))
        for adapter in ids:
            client.request("DELETE", f"/v1/adapters/{adapter}")
    one, fifty = statistics.median(single), statistics.median(many)
    print(describe_machine())
    print(f"{MINI_CLIP}, {CLIENTS} clients, {IMAGES} images a request, {REQUESTS} requests a round, {ROUNDS} rounds")
    print(f"  one adapter: {one:.0f} images/s")
    print(f"  {ADAPTERS} adapters in turn: {fifty:.0f} images/s, {fifty / one:.2f} of it")
    return 0


def _adapters(n: int) -> list[bytes]:
    backbone = accelerate(load_backbone(MINI_CLIP))
    contents = []
    for seed in range(n):
        spec = JobSpec.parse({
            "kind": "reprogram", "dataset": "made", "input_transform": {"kind": "padding", "image_size": 48},
            "label_mapping": {"kind": "random", "seed": seed}, "seed": seed,
        })  # fmt: skip
        assert isinstance(spec, ReprogramSpec)
        transform = spec.input_transform.build(backbone.preprocessing)
        with torch.no_grad():
            for parameter in transform.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
        model = ReprogrammedModel(transform, backbone, spec.label_mapping.build(backbone, CLASSES))
        contents.append(zip_adapter(save_adapter(model, spec=spec, classes=CLASSES, record={})))
    return contents


def _import(client: Client, content: bytes) -> str:
    return str(client.upload("/v1/adapters", io.BytesIO(content), "adapter.zip", {})["id"])


def _files() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, size=(IMAGES, 48, 48, 3), dtype=np.uint8)
    encoded = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append(file.getvalue())
    return encoded


def _predict(client: Client, adapter: str, files: Sequence[bytes]) -> None:
    images = [("images", (f"{i}.png", content, "image/png")) for i, content in enumerate(files)]
    answer = client.request("POST", f"/v1/adapters/{adapter}/predict", files=images)
    assert len(answer.json()["predictions"]) == len(files)


def _images_per_second(client: Client, adapters: Sequence[str], files: Sequence[bytes]) -> float:
    targets = list(itertools.islice(itertools.cycle(adapters), REQUESTS))
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda adapter: _predict(client, adapter, files), targets))
    return REQUESTS * len(files) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())

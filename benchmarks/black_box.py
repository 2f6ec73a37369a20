"""A model that only answers over HTTP, reprogrammed within one budget of images by each way there is.

    mr up &                              # or any service on this machine that may reach it: MR_URL, MR_API_KEY
    python -m benchmarks.black_box [--images 10000] [--data cifar10]

Another process of this script serves MobileNetV2 at 96 pixels over HTTP (PNGs in, probabilities of 1,000 classes out)
and counts what it serves. BAR (`zeroth_order`), SPSA-GC (`spsa`) and CMA-ES train a prompt of rank 2 over the image
under a frequent mapping, `prime` asks once and works on builtin/mini-clip. Each job has the same budget; what the
result says was spent stands beside what the server counted. Answers for images as they are stay with the service, so
the first job pays for all, and `prime`, the last, for none. About 600 training images, a fifth for selection.
"""

import argparse
import base64
import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.environment import describe_machine, test_data
from benchmarks.methods.cells import IMAGES_PER_CLASS
from benchmarks.runs import dataset_of, finished, percent, with_error
from cli.client import Client, connect
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate

RESULTS = Path(__file__).parent / "results"
CANVAS, CLASSES = 96, 1000
TRAINERS: Mapping[str, Mapping[str, Any]] = {
    "zeroth_order": {"kind": "zeroth_order", "directions": 10, "learning_rate": 0.01},
    "spsa": {"kind": "spsa", "draws": 5},
    "cma_es": {"kind": "cma_es", "population": 10},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="the budget of each job")
    parser.add_argument("--data", choices=IMAGES_PER_CLASS, default="cifar10")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        _serve(options.serve)
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    weights = data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    command = [sys.executable, "-m", "benchmarks.black_box", "--serve", str(weights)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, connect() as client:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            rows = [_row(*method) for method in _outcomes(client, data, options, url)]
        finally:
            server.terminate()
    text = _page(rows, options)
    (RESULTS / "black_box.md").write_text(text)
    print(text)
    return 0


def _outcomes(client: Client, data: Path, options: argparse.Namespace, url: str) -> Any:
    dataset = dataset_of(client, data, options.data, IMAGES_PER_CLASS[options.data])
    backbone = client.send_form("/v1/backbones", _form(url))["id"]
    shared = {"dataset": dataset, "backbone": backbone, "budget": {"max_images": options.images}}
    for name, trainer in TRAINERS.items():
        spec = {
            "kind": "reprogram",
            "input_transform": {"kind": "low_rank", "rank": 2},
            "label_mapping": {"kind": "frequent"},
            "trainer": {**trainer, "batch_size": 32, "epochs": 50},
            **shared,
        }
        yield name, *_done(client, spec, url)
    trainer = {"kind": "gradient", "epochs": 8, "batch_size": 32}
    yield "prime", *_done(client, {"kind": "prime", "trainer": trainer, **shared}, url)


def _done(client: Client, spec: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, int]]:
    before = _counts(url)
    result = finished(client, client.submit(dict(spec)))["result"]
    after = _counts(url)
    return result, {name: after[name] - before[name] for name in after}


def _row(name: str, result: Mapping[str, Any], served: Mapping[str, int]) -> str:
    told, metrics, baselines = result["remote"], result["metrics"], result["baselines"]
    validation, test = metrics["validation"], metrics["test"]
    cells = (
        name,
        f"{result['trainable_parameters']:,}",
        f"{100 * validation['accuracy']:.1f}",
        with_error(test["accuracy"], test["n"]) if test else "-",
        *(percent(baselines.get(baseline)) for baseline in ("mapping_only", "majority", "linear_probe")),
        f"{told['calls']:,} = {served['calls']:,}" if told["calls"] == served["calls"] else "DIFFERENT",
        f"{told['images']:,} = {served['images']:,}" if told["images"] == served["images"] else "DIFFERENT",
        f"{result['timing']['seconds']:.0f}",
        result["verdict"]["use"],
    )
    return f"| {' | '.join(cells)} |"


def _page(rows: list[str], options: argparse.Namespace) -> str:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    head = (
        "| way | parameters | validation | test | mapping alone | majority | linear probe | calls told = served "
        "| images told = served | seconds | use |"
    )
    return "\n".join([
        "# A black box within a budget of images",
        "",
        about,
        "",
        f"{options.data}, {options.images:,} images each; {describe_machine()}. *Alone* is the frequent mapping of the",
        "remote answers (of `prime`: of the primed encoder's), the probe is on those answers, of `prime` on the local",
        "embedding. One seed.",
        "",
        head,
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ])  # fmt: skip


def _form(url: str) -> dict[str, str]:
    remote = {
        "url": f"{url}/classify",
        "protocol": "json",
        "answer": "probabilities",
        "pixels": "png",
        "batch_size": 32,
    }
    return {
        "name": f"mobilenet-{int(time.time())}",
        "library": "remote",
        "classes": json.dumps([f"class {i}" for i in range(CLASSES)]),
        "preprocessing": json.dumps({"size": CANVAS, "mean": [0] * 3, "std": [1] * 3, "interpolation": "bicubic"}),
        "remote": json.dumps(remote),
    }


def _counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/counts") as answer:
        return dict(json.load(answer))


def _serve(weights: Path) -> None:
    """Until it is terminated."""
    torch.set_num_threads(1)
    preprocessing = Preprocessing(size=CANVAS, mean=(0.5,) * 3, std=(0.5,) * 3)
    description = BackboneDescription(
        id="served",
        library="timm",
        architecture="mobilenetv2_100",
        arguments={"pad_type": "same"},
        preprocessing=preprocessing,
    )
    model = accelerate(load_backbone(description, weights=weights))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(model))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def _handler(model: Backbone) -> type[BaseHTTPRequestHandler]:
    counts, lock = {"calls": 0, "images": 0}, threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._reply(counts)

        def do_POST(self) -> None:
            images = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["images"]
            pixels = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))) for image in images])
            with lock, torch.no_grad():
                counts["calls"] += 1
                counts["images"] += len(images)
                canvases = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
                probabilities = model(canvases, "source_logits").double().softmax(1)
            self._reply({"predictions": probabilities.tolist()})

        def _reply(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


if __name__ == "__main__":
    sys.exit(main())

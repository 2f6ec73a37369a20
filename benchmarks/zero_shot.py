"""A CLIP-shaped model through the open_clip path: zero-shot accuracy on cifar10, and a frame prompt around it.

    mr up &                            # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.zero_shot     # writes results/zero_shot.md

Registers the open_clip-shaped model of the test data by upload with its model_config. Zero-shot is a job without a
prompt (identity + text) judged on all 1,000 test images; the adapter is padding + text on 50 training images a class.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.environment import test_data
from benchmarks.runs import finished, limited, uploaded
from cli.client import Client, connect

RESULTS = Path(__file__).parent / "results"
TEMPLATE = "a photo of a {}."
PREPROCESSING = {"size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}


def main() -> int:
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    with connect() as client:
        backbone = _backbone(client, data)
        archive = limited(data / "images" / "cifar10.zip", 50)
        dataset = uploaded(client, "cifar10, 50 a class (benchmark)", lambda: archive)
        base = {"kind": "reprogram", "dataset": dataset["id"], "backbone": backbone["id"],
                "label_mapping": {"kind": "text", "template": TEMPLATE}}  # fmt: skip
        zero_shot = _done(client, base | {"input_transform": {"kind": "identity"}})
        adapter = _done(client, base | {
            "input_transform": {"kind": "padding", "image_size": 192},
            "trainer": {"kind": "gradient", "optimizer": "sgd", "learning_rate": 40, "epochs": 4, "batch_size": 64},
        })  # fmt: skip
    text = _text(backbone, dataset["classes"], zero_shot["result"], adapter["result"])
    (RESULTS / "zero_shot.md").write_text(text)
    print(text)
    return 0


def _backbone(client: Client, data: Path) -> dict[str, Any]:
    name = "mnv2-cliptext (benchmark)"
    for backbone in client.pages("/v1/backbones"):
        if backbone["name"] == name:
            return backbone
    form = {
        "name": name,
        "library": "open_clip",
        "architecture": "mnv2-cliptext",
        "model_config": (data / "weights" / "mnv2-cliptext.json").read_text(),
        "preprocessing": json.dumps(PREPROCESSING),
    }
    with (data / "weights" / "mnv2_cliptext_openclip_fp16.safetensors").open("rb") as file:
        return client.upload("/v1/backbones", file, "mnv2-cliptext.safetensors", form)


def _done(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    return finished(client, client.submit(spec))


def _text(backbone: dict[str, Any], classes: list[str], zero_shot: dict[str, Any], adapter: dict[str, Any]) -> str:
    test = zero_shot["metrics"]["test"]
    accuracy, n = test["accuracy"], test["n"]
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    trained, frame = adapter["metrics"]["test"]["accuracy"], adapter["trainable_parameters"]
    probe = adapter["baselines"]["linear_probe"]["test"]["accuracy"]
    return f"""# The open_clip path, on cifar10

{backbone["parameters"]} parameters, sha256 `{backbone["sha256"]}`, embedding of {backbone["outputs"]["embedding"]}.

| | test accuracy |
|---|---|
| zero-shot, {n} test images | {accuracy:.1%} ± {error:.1%} |
| padding (192 in 224, {frame} parameters) + text, 4 epochs of 500 images | {trained:.1%} |
| linear probe on the frozen embedding | {probe:.1%} |

Template `{TEMPLATE}`; class names: {", ".join(classes)}. Verdict on the adapter: {adapter["verdict"]["reason"]}
"""


if __name__ == "__main__":
    sys.exit(main())

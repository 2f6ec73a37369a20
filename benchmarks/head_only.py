"""A head-only job on ViT-B-32, and the same once more: what the shared outputs of the backbone are worth.

    mr up &                          # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.head_only   # prints seconds by phase of both jobs, and their ratio

2,000 training images of cifar10 (and its 1,000 test images), random weights, a linear head on the embedding, 10 epochs.
Seconds are `timing.seconds` of the results: without the start of the process, with the loading of the backbone. The
first job is the first only on a service that has not seen this dataset and backbone.
"""

import sys
from typing import Any

from benchmarks.environment import describe_machine, test_data
from benchmarks.runs import finished, limited, uploaded
from cli.client import connect

BACKBONE = "random:open_clip:ViT-B-32/openai"


def main() -> int:
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    with connect() as client:
        archive = limited(data / "images" / "cifar10.zip", 200)
        dataset = uploaded(client, "cifar10, 200 a class (benchmark)", lambda: archive)
        spec: dict[str, Any] = {
            "kind": "reprogram",
            "dataset": dataset["id"],
            "backbone": BACKBONE,
            "input_transform": {"kind": "identity"},
            "label_mapping": {"kind": "linear"},
            "trainer": {"kind": "gradient", "epochs": 10},
        }
        timings = [finished(client, client.submit(spec))["result"]["timing"] for _ in range(2)]
    print(describe_machine())
    print(f"{BACKBONE}, 2,000 + 1,000 images of cifar10, identity + linear, 10 epochs")
    for name, timing in zip(("first", "second"), timings, strict=True):
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in timing["phases"].items())
        print(f"  {name} job: {timing['seconds']:.1f} s ({phases})")
    print(f"  ratio: {timings[0]['seconds'] / timings[1]['seconds']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Classify images with an adapter file, in this process: the library alone, no service."""

import argparse
from dataclasses import asdict
from pathlib import Path

from cli.errors import Exit
from cli.output import percent, print_json, print_table


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", type=Path, metavar="adapter.zip", help="or the unpacked folder")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--backbone", metavar="WEIGHTS.safetensors", help="the weights of an uploaded backbone")
    parser.add_argument("--json", action="store_true", help="print the predictions as JSON on stdout")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from mr_core import load_adapter

    classifier = load_adapter(arguments.adapter, backbone=arguments.backbone)
    predictions = classifier.predict(arguments.images)
    if arguments.json:
        print_json([{"input": name, **asdict(item)} for name, item in zip(arguments.images, predictions, strict=True)])
    else:
        rows = [
            (name, item.label, percent(item.probability))
            for name, item in zip(arguments.images, predictions, strict=True)
        ]
        print_table(("image", "label", "probability"), rows)
    return Exit.DONE

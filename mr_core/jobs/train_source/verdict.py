"""Whether the source model is better than what needs no training of its own, in words."""

from collections.abc import Mapping
from typing import Any


def judge(metrics: Mapping[str, Any], baselines: Mapping[str, Any], *, on_map: bool) -> dict[str, str]:
    """`{"use", "reason"}`: the highest validation accuracy, the source model on a tie. On test data only without it."""
    names = {
        "source": "the source model",
        "majority": "always answering the most frequent class",
        "linear_probe": f"a linear probe on the {'pooled frozen features' if on_map else 'raw pixels'}",
    }
    part = "validation" if metrics.get("validation") else "test" if metrics.get("test") else None
    if part is None:
        return {"use": "source", "reason": "There are no images to judge on: neither validation nor test images."}
    accuracies = {"source": metrics[part]["accuracy"]}
    accuracies |= {name: baselines[name][part]["accuracy"] for name in ("majority", "linear_probe")}
    use = max(accuracies, key=lambda name: (accuracies[name], name == "source"))
    others = ", ".join(f"{names[name]} {accuracies[name]:.1%}" for name in accuracies if name != use)
    reason = f"On {part} images {names[use]} reaches {accuracies[use]:.1%}; {others}."
    if use != "source":
        reason += " The source model is not better than this baseline."
    if part == "test":
        reason += " There was no validation part, so this compares on the test split and is optimistic."
    return {"use": use, "reason": reason}

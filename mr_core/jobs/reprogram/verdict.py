"""Which of adapter and baselines to use, in words. Never an adapter worse than its baseline without saying so."""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "adapter": "the adapter",
    "majority": "always answering the most frequent class",
    "mapping_only": "the label mapping without a prompt",
    "linear_probe": "a linear probe on the frozen embedding",
    "zero_shot": "zero-shot classification by class names",
}


def judge(
    metrics: Mapping[str, Any], baselines: Mapping[str, Any], *, names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`{"use", "reason"}`: the highest validation accuracy; the adapter on a tie. On test data only without validation.

    Where the adapter was judged on neither, the best baseline that was. The random backbone is a control, not something
    to use: where it does as well, the reason says that the pretrained weights did not help. `names` words baselines
    otherwise than usual.
    """
    called = _NAMES | dict(names or {})
    part = "validation" if metrics.get("validation") else "test"
    known = {name: _accuracy(baselines[name], part) for name in _NAMES if (baselines.get(name) or {}).get(part)}
    if not metrics.get(part):
        use, reason = "adapter", "The adapter was not judged on any images."
        if known:
            use = max(known, key=lambda name: known[name])
            reason += f" On {part} images {called[use]} reaches {known[use]:.1%}: prefer what was judged."
        return {"use": use, "reason": reason}
    accuracies = {"adapter": _accuracy(metrics, part), **known}
    use = max(accuracies, key=lambda name: (accuracies[name], name == "adapter"))
    others = ", ".join(f"{called[name]} {accuracies[name]:.1%}" for name in accuracies if name != use)
    reason = f"On {part} images {called[use]} reaches {accuracies[use]:.1%}; {others}."
    if use != "adapter":
        reason += " The adapter is worse than this baseline: prefer the baseline."
    if part == "test":
        reason += " There was no validation part, so this compares on the test split and is optimistic."
    control = baselines.get("random_backbone")
    if control is not None:
        reason += f" The same adapter on a random backbone reaches {_accuracy(control, part):.1%}"
        gained = accuracies["adapter"] - _accuracy(control, part)
        reason += "." if gained > 0.02 else ": the pretrained weights gave little or nothing here."
    return {"use": use, "reason": reason}


def _accuracy(scores: Mapping[str, Any], part: str) -> float:
    return float((scores.get(part) or {"accuracy": 0.0})["accuracy"])

"""What the numbers of a diagnosis amount to, in a label and a sentence."""

from collections.abc import Mapping
from typing import Any

from mr_core.ntk import calibration
from mr_core.ntk.prediction import accuracy_interval

LINEARISED = (
    "The prediction is that of the linearised model trained with squared loss on the sampled images; it is not "
    "calibrated against trained adapters, and more images or feature learning can take a real run above it"
)
CALIBRATED = (
    "The prediction weighs a short training on halves of the sample ({short_training}) and the linearised model "
    "({linearised}) as {n_rows} adapters have it that were trained on {n_groups} datasets of a few hundred images, for "
    "8 epochs: a task unlike theirs or a longer training can end outside the interval"
)


def judge(
    summary: Mapping[str, Any],
    predicted: Mapping[str, Any],
    baselines: Mapping[str, float | None],
    *,
    is_trained: bool,
    is_approximate: bool = False,
) -> dict[str, str]:
    """The verdict `{"label", "reason"}`.

    `rank_limited` where the kernel has more rows than the adapter parameters; else `unlikely` where neither the
    prediction nor the linear probe is above the majority class; else `linear_probe_suffices` where the probe is at
    least as good as the prediction, or alone above the majority; else `promising`. "Above" asks the lower end of the
    90 % interval for the prediction, the same margin for the probe. Without a prediction the probe alone is judged, by
    the interval that it has itself. `is_approximate` says that the prediction took an (N, N) kernel for a prompt,
    `is_trained` that the kernel is an adapter's after training.
    """
    probe, majority = baselines["linear_probe"] or 0.0, baselines["majority"] or 0.0
    if predicted["accuracy"] is None:
        n_samples = int(summary["n_samples"])
        probe_low, _ = accuracy_interval(round(probe * n_samples), n_samples)
        accuracy, learns, probe_learns = 0.0, False, probe_low > majority
        numbers = f"no predicted accuracy, {_named_baselines(baselines)}"
    else:
        accuracy, (low, high) = predicted["accuracy"], predicted["accuracy_interval"]
        learns, probe_learns = low > majority, probe - (accuracy - low) > majority
        numbers = (
            f"predicted accuracy {_percent(accuracy)} (90 % interval {_percent(low)} to {_percent(high)}), "
            f"{_named_baselines(baselines)}"
        )
    rows = summary["n_samples"] * summary["n_classes"]
    if rows > summary["n_parameters"]:
        label = "rank_limited"
        finding = (
            f"{summary['n_samples']} samples x {summary['n_classes']} classes are {rows} equations for "
            f"{summary['n_parameters']} trainable parameters, so no training can fit every label and the smallest "
            f"eigenvalue is 0 by counting: use a transform with more parameters, or fewer samples; {numbers}"
        )
    elif not learns and not probe_learns:
        label = "unlikely"
        finding = f"neither the adapter nor a linear probe is clearly above the majority class: {numbers}"
    elif probe >= accuracy or not learns:
        label = "linear_probe_suffices"
        finding = f"a linear probe on the frozen features does as well without a prompt: {numbers}"
    else:
        label = "promising"
        finding = f"the adapter is predicted above the linear probe: {numbers}"
    sentences = [finding[0].upper() + finding[1:], _limits(predicted)]
    if summary.get("method") == "lanczos":
        sentences.append(_matrix_free(summary, predicted, rows))
    if is_approximate:
        sentences.append(
            f"The {summary['kernel']} kernel treats outputs as if they shared no parameters and overestimates the"
            " accuracy of a prompt, by 20 points on digits: take the kernel 'full' before relying on it"
        )
    if is_trained:
        sentences.append(
            "The kernel is that of the trained adapter, which may have seen these images: the accuracy is optimistic"
        )
    return {"label": label, "reason": ". ".join(sentences) + "."}


def _limits(predicted: Mapping[str, Any]) -> str:
    coefficients = calibration.in_force()
    if coefficients is None or predicted["calibration"] is None:
        return LINEARISED
    return CALIBRATED.format(
        short_training=_percent(predicted["short_training_accuracy"]),
        linearised=_percent(predicted["linearised_accuracy"]),
        n_rows=coefficients.n_rows,
        n_groups=coefficients.n_groups,
    )


def _matrix_free(summary: Mapping[str, Any], predicted: Mapping[str, Any], rows: int) -> str:
    n_eigenpairs = summary["approximation"]["n_eigenpairs"]
    told = (
        f"The kernel of {rows} rows is too large for a dense eigensolver: its {n_eigenpairs} largest eigenvalues come "
        "from Lanczos, its effective rank from quadrature, and its smallest eigenvalue is not known"
    )
    if predicted["accuracy"] is None:
        return f"{told}. With so many classes nothing is predicted: take the kernel 'trace', or fewer samples"
    return f"{told}. The prediction is that of {predicted['n_samples']} of its {summary['n_samples']} samples"


def _named_baselines(baselines: Mapping[str, float | None]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {_percent(value)}" for name, value in baselines.items() if value is not None
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

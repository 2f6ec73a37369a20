"""The page of results: tables by depth over the draws, rank correlations, and pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import spearmanr

from experiments.ntk_theory.cells import (
    ARCHITECTURES,
    SOURCE_DATA,
    TARGET_DATA,
    TRANSFORMS,
    Name,
    Scale,
    SourceCell,
    TargetCell,
    source_cells,
)
from experiments.ntk_theory.pictures import depth_figure
from mr_core.plots import render

Known = Mapping[str, Mapping[str, Any]]
Series = dict[int, list[float]]  # by depth, a value a draw

TITLES: Mapping[Name, str] = {
    "e1": "E1: networks from scratch",
    "e2": "E2: a network on a frozen feature map",
}
_INTRODUCTION = """\
Does a deeper source have a larger smallest eigenvalue of its tangent kernel, and does reprogramming it then reach a
lower loss, as the theory of arXiv:2506.00620 says? Written by `python -m experiments.ntk_theory`; its settings are in
`cells.py`.

Initialisation: weights of deviation sqrt(2 / fan-in), biases sqrt(0.1); the parametrisation is the standard one, so
kernels of finite width differ from those of NTK parametrisation (as the closed form of infinite width has it) by
factors of the width. K_S is the trace kernel (mean over outputs) of all parameters on training images of the source
set. *Raw* is lambda_min, *scaled* is lambda_min / (trace / n). A lambda_min that float64 does not resolve, or of more
rows than parameters, is a dash; P, N C and the numerical rank stand beside each. Depth counts weighted layers before
the linear head. Selection is on validation images, test images are used once. Target loss is the cross entropy on test
images. Departures from the experiments: FC+VP has one learning rate (that of FC), widths and sets are smaller, targets
are others ({targets}; source {source}), b is the identity in order of class names."""
_EIGEN = ("lambda_min", "lambda_max", "trace")
_TIMES = ("initial", "trained", "infinite_width")
_ON_MAP = "The base is `{base}`, whose map is computed once; a prompt acts on the canvas before it."


def write_page(path: Path, known: Known, scale: Scale, *, base: str) -> None:
    """`path` and the pictures beside it; of what is known."""
    lines = ["# Depth of the source, its tangent kernel, and reprogramming", ""]
    lines += [_INTRODUCTION.format(targets=", ".join(TARGET_DATA), source=SOURCE_DATA), ""]
    lines += [f"Scale: {scale}.", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    for experiment, title in TITLES.items():
        cells = [cell for cell in source_cells(experiment, scale, base=base) if known.get(cell.name, {}).get("kernels")]
        if not cells:
            continue
        lines += [f"## {title}", ""]
        if experiment == "e2":
            lines += [_ON_MAP.format(base=base), ""]
        for architecture in ARCHITECTURES[experiment]:
            chosen = [cell for cell in cells if cell.architecture == architecture]
            if chosen:
                lines += _section(path, experiment, architecture, chosen, known)
    lines += _failures(known)
    path.write_text("\n".join(lines).rstrip() + "\n")


def _section(path: Path, experiment: Name, architecture: str, cells: Sequence[SourceCell], known: Known) -> list[str]:
    sources = {
        "accuracy": by_depth(cells, lambda cell: known[cell.name]["accuracy"]),
        "initial": by_depth(cells, lambda cell: _scaled(known[cell.name]["kernels"]["initial"])),
        "trained": by_depth(cells, lambda cell: _scaled(known[cell.name]["kernels"]["trained"])),
        "infinite": by_depth(cells, lambda cell: _scaled(known[cell.name]["kernels"].get("infinite_width"))),
    }
    lines = [f"### {architecture}", "", *_source_table(cells, known), "", *_target_table(experiment, cells, known), ""]
    lines += _correlations(experiment, cells, known)
    losses = {
        f"{transform}, {data}": _losses(cells, known, data, transform)
        for data in TARGET_DATA
        for transform in TRANSFORMS[experiment]
    }
    kernels = {f"lambda_min, {name}": values for name, values in sources.items() if name != "accuracy"}
    panels = {
        "scaled lambda_min of K_S": kernels,
        "source accuracy": {"source": sources["accuracy"]},
        "target loss": losses,
    }
    picture = f"{path.stem}_{experiment}_{architecture}.svg"
    path.with_name(picture).write_bytes(render(depth_figure(panels), "svg"))
    return [*lines, f"![By depth]({picture})", ""]


def by_depth(cells: Iterable[SourceCell], value: Callable[[SourceCell], float | None]) -> Series:
    """The values that are known, by depth, one a draw."""
    series: Series = {}
    for cell in cells:
        found = value(cell)
        if found is not None:
            series.setdefault(cell.depth, []).append(found)
    return dict(sorted(series.items()))


def _scaled(kernel: Mapping[str, Any] | None) -> float | None:
    if not kernel or kernel["lambda_min"] is None:
        return None
    return float(kernel["lambda_min"] * kernel["n_samples"] / kernel["trace"])


def _raw(kernel: Mapping[str, Any] | None) -> float | None:
    return None if not kernel else kernel["lambda_min"]


def _losses(cells: Iterable[SourceCell], known: Known, data: str, transform: str) -> Series:
    return by_depth(cells, lambda cell: known.get(TargetCell(cell, data, transform).name, {}).get("loss"))


def _source_table(cells: Sequence[SourceCell], known: Known) -> list[str]:
    lines = [
        "| depth | P | N C | accuracy | linear probe | raw, initial | scaled, initial | rank | raw, trained "
        "| scaled, trained | rank | raw, infinite width | scaled, infinite width |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for depth in sorted({cell.depth for cell in cells}):
        rows = [known[cell.name] for cell in cells if cell.depth == depth]
        kernels = {when: [row["kernels"].get(when) for row in rows] for when in _TIMES}
        initial = kernels["initial"][0]
        shown = [str(depth), f"{initial['n_parameters']:,}", str(initial["n_samples"] * rows[0]["n_outputs"])]
        shown += [_mean([row[key] for row in rows], percent=True) for key in ("accuracy", "probe")]
        for when in _TIMES:
            shown += [_mean([read(kernel) for kernel in kernels[when]]) for read in (_raw, _scaled)]
            if when != "infinite_width":
                shown.append(_ranks(kernels[when]))
        lines.append(f"| {' | '.join(shown)} |")
    return lines


def _target_table(experiment: Name, cells: Sequence[SourceCell], known: Known) -> list[str]:
    lines = [
        "| target | transform | depth | loss | accuracy | loss alone | P | N C | rank | lambda_min | lambda_max "
        "| trace |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data in TARGET_DATA:
        for transform in TRANSFORMS[experiment]:
            for depth in sorted({cell.depth for cell in cells}):
                names = [TargetCell(cell, data, transform).name for cell in cells if cell.depth == depth]
                rows = [known[name] for name in names if name in known]
                kernels = [row["kernel"] for row in rows if row.get("kernel")]
                shown = [data, transform, str(depth), _mean([row.get("loss") for row in rows])]
                shown += [_mean([row.get("accuracy") for row in rows], percent=True)]
                shown += [_mean([(row.get("alone") or {}).get("loss") for row in rows])]
                shown += _sizes(kernels[0]) if kernels else ["-", "-"]
                shown.append(_ranks(kernels))
                shown += [_mean([kernel[key] for kernel in kernels]) for key in _EIGEN]
                lines.append(f"| {' | '.join(shown)} |")
    return lines


def _correlations(experiment: Name, cells: Sequence[SourceCell], known: Known) -> list[str]:
    lines = [
        "Spearman's correlation with depth, over all draws. As the theory has it lambda_min and the source's accuracy",
        "rise with depth, and target losses fall; p below 0.05 decides:",
        "",
        "| quantity | rho | p | n | agrees |",
        "|---|---|---|---|---|",
    ]
    quantities: dict[str, Series] = {}
    for when in _TIMES:
        for how, read in (("raw", _raw), ("scaled", _scaled)):
            quantities[f"lambda_min(K_S), {when.replace('_', ' ')}, {how}"] = by_depth(
                cells, lambda cell, w=when, r=read: r(known[cell.name]["kernels"].get(w))
            )
    quantities["source accuracy"] = by_depth(cells, lambda cell: known[cell.name]["accuracy"])
    for data in TARGET_DATA:
        for transform in TRANSFORMS[experiment]:
            quantities[f"target loss, {data}, {transform}"] = _losses(cells, known, data, transform)
    for name, series in quantities.items():
        pairs = [(depth, value) for depth, values in series.items() for value in values]
        if len(series) > 1 and len({value for _, value in pairs}) > 1:
            found = spearmanr(*zip(*pairs, strict=True))
            p = f"{found.pvalue:.2g}" if len(pairs) > 2 else "-"
            agrees = _agreement(found.statistic, found.pvalue, falls=name.startswith("target loss"))
            lines.append(f"| {name} | {found.statistic:+.2f} | {p} | {len(pairs)} | {agrees} |")
    return [*lines, ""]


def _agreement(rho: float, p: float, *, falls: bool) -> str:
    if not p < 0.05:
        return "open"
    return "yes" if (rho < 0) == falls else "no"


def _failures(known: Known) -> list[str]:
    failed = [(name, row[key]) for name, row in known.items() for key in ("error", "kernel_error") if row.get(key)]
    if not failed:
        return []
    return [
        "## What failed",
        "",
        *(f"- {name}: `{error['code']}`: {error['detail']}" for name, error in sorted(failed)),
    ]


def _sizes(kernel: Mapping[str, Any]) -> list[str]:
    return [f"{kernel['n_parameters']:,}", str(kernel["n_samples"] * kernel["n_classes"])]


def _ranks(kernels: Sequence[Mapping[str, Any] | None]) -> str:
    ranks = sorted({kernel["numerical_rank"] for kernel in kernels if kernel})
    return "-" if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _mean(values: Sequence[float | None], *, percent: bool = False) -> str:
    """Mean ± deviation over the draws that have a value; how many lack one."""
    found = [value * (100 if percent else 1) for value in values if value is not None]
    if not found:
        return "-"
    form = ".1f" if percent else ".3g"
    deviation = f" ± {format(stdev(found), form)}" if len(found) > 1 else ""
    missing = len(values) - len(found)
    return f"{format(fmean(found), form)}{deviation}" + (f" ({missing} unresolved)" if missing else "")

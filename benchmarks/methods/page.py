"""The page of what was reached, and of which orders hold."""

from collections.abc import Mapping, Sequence

from benchmarks.methods.cells import BASELINES, Cell, Outcome, Table, right
from benchmarks.runs import percent, with_error
from mr_core.paired_bootstrap import paired_bootstrap


def page(table: Table, outcomes: Mapping[Cell, Outcome], *, about: str) -> str:
    """Every cell beside its baselines, then the orders."""
    lines = [
        f"# {table.title}",
        "",
        about,
        "",
        "Test accuracy in percent: mean ± deviation over the seeds, and the adapter that validation chose ± the",
        "standard error of the test sample. *Alone*: the mapping on the images without a prompt. Seconds are of the",
        "job, all seeds and baselines, on a machine that did other work beside it.",
        "",
        "| data | transform | mapping | seeds | adapter | alone | majority | zero-shot | linear probe | random |"
        " parameters | seconds | use |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, outcome in outcomes.items():
        mean, deviation = outcome["seeds"]
        row = (
            cell.data,
            cell.transform,
            f"{cell.mapping}, {cell.trainer}" if cell.trainer else cell.mapping,
            f"{100 * mean:.1f} ± {100 * deviation:.1f}",
            with_error(outcome["accuracy"], outcome["n"]),
            *(percent(outcome["baselines"].get(baseline)) for baseline in BASELINES),
            f"{outcome['parameters']:,}" if "parameters" in outcome else "-",
            f"{outcome['seconds']:.0f}" if "seconds" in outcome else "-",
            outcome["use"],
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", *_orders(table, outcomes)]) + "\n"


def _orders(table: Table, outcomes: Mapping[Cell, Outcome]) -> Sequence[str]:
    lines = [
        "## The published orders",
        "",
        "Each pair on the same test images: difference in points of the adapters that validation chose, with its 95 %",
        "interval (paired bootstrap over test images). *Holds*: the interval lies above 0; *reversed*: below; else",
        "*open*. Against the linear probe: mean over the seeds, without an interval.",
        "",
        "| data | pair | difference | interval | order |",
        "|---|---|---|---|---|",
    ]
    by_name = {cell.name: outcome for cell, outcome in outcomes.items()}
    for data in dict.fromkeys(cell.data for cell in outcomes):
        for lower, higher in table.orders:
            better = by_name.get(f"{data}/{higher}")
            worse = by_name.get(f"{data}/{lower}")
            if better is None:
                continue
            if lower == "linear_probe":
                gain = 100 * (better["seeds"][0] - better["baselines"]["linear_probe"]["test"]["accuracy"])
                lines.append(f"| {data} | {lower} < {higher} | {gain:+.1f} | - | - |")
            elif worse is not None:
                found = paired_bootstrap(right(better), right(worse), seed=0)
                low, high = (100 * bound for bound in found.interval)
                verdict = "open" if not found.beyond_noise else "holds" if low > 0 else "reversed"
                gain, between = f"{100 * found.difference:+.1f}", f"{low:+.1f} to {high:+.1f}"
                lines.append(f"| {data} | {lower} < {higher} | {gain} | {between} | {verdict} |")
    return lines

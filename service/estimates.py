"""How long a job would take and how much memory it would hold, from the tenant's recorded runs.

    seconds = start + images passed / pace

`start` is what the runs took beside their work, `pace` their images a second: the geometric mean over the runs nearest
to the job. Without any the pace is a published one.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median
from typing import Any, Final, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mr_core.backbones.description import RANDOM_PREFIX, BackboneDescription
from service import workers
from service.models import TERMINAL_STATUSES, Dataset, EndedAttempt, Job
from service.workload import images_of_parts, images_passed, n_parts, n_trainings, n_waits, training_images

Confidence = Literal["high", "medium", "low"]

PUBLISHED_PACE: Final = {"mini_clip": 80.0, "mobilenetv2": 90.0}
"""Images a second, by the beginning of an architecture's name; docs/http.md says where they were measured."""
PUBLISHED_PACE_OF_OTHERS: Final = 30.0
PUBLISHED_START_S: Final = 8.0

_MOST_RUNS = 30  # those nearest in size decide
_LOOKED_AT = 500
_SPREAD: Final[Mapping[str, float]] = {"high": 0.25, "medium": 0.7, "low": 1.0, "published": 1.2}
"""Standard deviation of the logarithm of a pace, before runs show theirs; it weighs as much as two of them."""
_WEIGHT_OF_SPREAD = 2
_LEVEL = 0.9
_PROCESS_BYTES = 600 << 20
_UNKNOWN_WEIGHTS_BYTES = 350 << 20
_KERNEL_COPIES = 3
_MOST_KERNEL_BYTES = 2 << 30  # a larger kernel is not formed


@dataclass(frozen=True)
class Basis:
    """What an estimate goes by."""

    source: Literal["same_backbone", "same_family", "same_device", "published"]
    runs: int
    images: int | None
    images_per_second: float | None
    start_s: float


@dataclass(frozen=True)
class Estimate:
    """Seconds with an interval that holds 90 % of such jobs, and bytes of memory."""

    seconds: float
    seconds_interval: tuple[float, float]
    memory_bytes: int
    confidence: Confidence
    basis: Basis
    queue_wait_s: float | None


@dataclass(frozen=True)
class Run:
    """A run that was recorded; without `images` its kind is not counted in images."""

    backbone: str
    images: int | None
    seconds: float
    work_s: float
    peak_memory_bytes: int | None

    @property
    def pace(self) -> float:
        return (self.images or 1) / max(self.work_s, 1e-3)


@dataclass(frozen=True)
class Pace:
    """Work a second, and how far single runs lie from it."""

    middle: float
    low: float
    high: float


def estimate(
    session: Session,
    tenant: str,
    spec: Mapping[str, Any],
    *,
    dataset: Dataset,
    queue: str,
    backbone: BackboneDescription | None,
    weights_bytes: int | None,
    describe: Callable[[str], BackboneDescription | None],
) -> Estimate:
    """The estimate of a stored spec; `describe` gives a recorded backbone's description, None where there is none."""
    kind, images = str(spec["kind"]), images_passed(spec, splits=dataset.splits, n_classes=len(dataset.classes))
    if images is not None:
        images += images_of_parts(spec, splits=dataset.splits, n_classes=len(dataset.classes))
    parts = n_parts(spec, splits=dataset.splits, n_classes=len(dataset.classes))
    recorded = recorded_runs(session, tenant, kind=kind, queue=queue)
    source, runs = nearest(recorded, backbone, images=images, describe=describe)
    confidence: Confidence = {"same_backbone": "high", "same_family": "medium"}.get(source, "low")  # type: ignore[assignment]
    if source == "published":
        pace, start_s = published_pace(backbone), PUBLISHED_START_S
    else:
        pace = pace_of([run.pace for run in runs], spread=_SPREAD[confidence])
        start_s = median(run.seconds - run.work_s for run in runs)
    if parts:
        start_s *= 1 + n_waits(spec, parts) + parts  # a process for each part, and the job's own before and after them

    def seconds_at(images_per_second: float) -> float:
        return start_s + work_s(spec, dataset.splits, images, images_per_second)

    seconds = seconds_at(pace.middle)
    return Estimate(
        seconds=seconds,
        seconds_interval=(seconds_at(pace.high), seconds_at(pace.low)),
        memory_bytes=_memory_bytes(spec, dataset, runs if source == "same_backbone" else [], weights_bytes),
        confidence=confidence,
        basis=Basis(source, len(runs), images, None if images is None else pace.middle, start_s),
        queue_wait_s=queue_wait_s(session, queue, typical_s=_typical_s(session, tenant, queue) or seconds),
    )


def recorded_runs(session: Session, tenant: str, *, kind: str, queue: str) -> list[Run]:
    """The tenant's latest undisturbed runs of a kind on a queue: those that succeeded at the first attempt."""
    query = (
        select(EndedAttempt)
        .filter_by(tenant=tenant, kind=kind, queue=queue, outcome="succeeded", number=1)
        .where(EndedAttempt.work_s > 0, EndedAttempt.backbone.is_not(None))
        .order_by(EndedAttempt.ended_at.desc())
        .limit(_LOOKED_AT)
    )
    return [
        Run(row.backbone or "", row.images, row.seconds, row.work_s or 0.0, row.peak_memory_bytes)
        for row in session.scalars(query)
    ]


def nearest(
    recorded: Sequence[Run],
    backbone: BackboneDescription | None,
    *,
    images: int | None,
    describe: Callable[[str], BackboneDescription | None],
) -> tuple[Literal["same_backbone", "same_family", "same_device", "published"], list[Run]]:
    """The runs to go by: of this backbone, else of its family, else any; of these the nearest in size."""
    counted = [run for run in recorded if (run.images is None) == (images is None)]
    same = [run for run in counted if backbone is not None and _bare(run.backbone) == _bare(backbone.id)]
    if same:
        return "same_backbone", _nearest_in_size(same, images)
    families = {name: _family(describe(name)) for name in {run.backbone for run in counted}}
    related = [run for run in counted if backbone is not None and families[run.backbone] == _family(backbone)]
    if related:
        return "same_family", _nearest_in_size(related, images)
    return ("same_device", _nearest_in_size(counted, images)) if counted else ("published", [])


def pace_of(paces: Sequence[float], *, spread: float) -> Pace:
    """The geometric mean, and the interval in which the pace of a further run lies with 90 %, with few runs more.

    Paces are taken as log-normal. Their variance is that of the runs and of `spread` together, the latter weighing as
    much as two runs; the interval is Student's for one more observation.
    """
    logs = [math.log(pace) for pace in paces]
    middle, n = fmean(logs), len(logs)
    degrees = _WEIGHT_OF_SPREAD + n - 1
    variance = (_WEIGHT_OF_SPREAD * spread**2 + sum((log - middle) ** 2 for log in logs)) / degrees
    reach = student_quantile((1 + _LEVEL) / 2, degrees) * math.sqrt(variance * (1 + 1 / n))
    return Pace(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def published_pace(backbone: BackboneDescription | None) -> Pace:
    """What was measured elsewhere, with a wide interval."""
    names = [name for name in PUBLISHED_PACE if backbone is not None and backbone.architecture.startswith(name)]
    middle = PUBLISHED_PACE[names[0]] if names else PUBLISHED_PACE_OF_OTHERS
    reach = math.exp(NormalDist().inv_cdf((1 + _LEVEL) / 2) * _SPREAD["published"])
    return Pace(middle, middle / reach, middle * reach)


def work_s(spec: Mapping[str, Any], splits: Mapping[str, int], images: int | None, pace: float) -> float:
    """Seconds of the work alone; a budget ends each training after the epoch that passes it."""
    seconds: float = (images or 1) / pace
    max_seconds = (spec.get("budget") or {}).get("max_seconds")
    if max_seconds is not None and spec.get("kind") == "auto":
        seeds = int(spec.get("seeds") or 1)
        trainings = 1 if seeds == 1 else 3 * seeds  # the winner's, and those of two finalists
        return min(seconds, (1 + trainings) * float(max_seconds))
    if max_seconds is None or images is None or "trainer" not in spec:
        return seconds
    training_s = training_images(spec, splits=splits) / pace
    an_epoch_s = training_images(spec, splits=splits, epochs=1) / pace
    spared_s: float = max(0.0, training_s - (max_seconds + an_epoch_s))
    return seconds - n_trainings(spec) * spared_s


def queue_wait_s(session: Session, queue: str, *, typical_s: float) -> float | None:
    """Until a worker of the queue would take another job, if all ahead were typical; None without a worker."""
    n_workers = len(workers.alive(session, queue))  # type: ignore[arg-type]
    if not n_workers:
        return None
    ahead = select(func.count()).select_from(Job).where(Job.queue == queue, Job.status.not_in(TERMINAL_STATUSES))
    n_ahead = session.scalars(ahead).one()
    return max(0, n_ahead - n_workers + 1) * typical_s / n_workers


def student_quantile(probability: float, degrees: int) -> float:
    """Of Student's distribution, by the expansion around the normal one (Abramowitz and Stegun, 26.7.5).

    Within 0.3 % from two degrees of freedom at 0.95. SciPy has it exactly, and takes a gateway's start twice as long.
    """
    z = NormalDist().inv_cdf(probability)
    terms: tuple[float, ...] = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def _typical_s(session: Session, tenant: str, queue: str) -> float | None:
    latest = (
        select(EndedAttempt.seconds)
        .filter_by(tenant=tenant, queue=queue, outcome="succeeded")
        .order_by(EndedAttempt.ended_at.desc())
        .limit(_MOST_RUNS)
    )
    seconds = session.scalars(latest).all()
    return median(seconds) if seconds else None


def _memory_bytes(spec: Mapping[str, Any], dataset: Dataset, runs: Sequence[Run], weights_bytes: int | None) -> int:
    """The largest recorded peak of the same backbone, or what process, two copies of the weights and kernel take.

    A kernel larger than those that were recorded counts beside them.
    """
    kernel_bytes = _kernel_bytes(spec, dataset)
    peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]
    if peaks:
        return max(*peaks, _PROCESS_BYTES + kernel_bytes)
    weights = _UNKNOWN_WEIGHTS_BYTES if weights_bytes is None else weights_bytes
    return _PROCESS_BYTES + 2 * weights + kernel_bytes


def _kernel_bytes(spec: Mapping[str, Any], dataset: Dataset) -> int:
    if spec.get("kind") != "diagnose":
        return 0
    n_rows = min(int(spec["samples"]), int(dataset.splits.get("train", 0)))
    n_rows *= len(dataset.classes) if spec["kernel"] == "full" else 1
    return min(_KERNEL_COPIES * 8 * n_rows**2, _MOST_KERNEL_BYTES)


def _nearest_in_size(runs: Sequence[Run], images: int | None) -> list[Run]:
    return sorted(runs, key=lambda run: abs(math.log((run.images or 1) / (images or 1))))[:_MOST_RUNS]


def _bare(backbone_id: str) -> str:
    return backbone_id.removeprefix(RANDOM_PREFIX)  # a control is as fast as what it stands beside


def _family(backbone: BackboneDescription | None) -> tuple[str, str] | None:
    """Library, and the letters that the architecture's name begins with: resnet18 and resnet50 are related."""
    if backbone is None:
        return None
    letters = re.match(r"[a-z_]*", backbone.architecture.lower())
    return backbone.library, letters[0] if letters else ""

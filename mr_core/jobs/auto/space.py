"""What a search chooses from: cells that can be, what needs no search, and the settings of each method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.auto.spec import DEFAULT_TRAINERS, DEFAULT_TRANSFORMS, AutoSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.diagnose.subject import chosen_samples
from mr_core.jobs.rank.screening import Cell, screen
from mr_core.jobs.rank.spec import RankSpec
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.bayesian_plus.spec import BayesianPlusSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.label_mappings.linear.spec import LinearSpec
from mr_core.label_mappings.text.spec import TextSpec
from mr_core.observer import Checkpoint
from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from optuna.trial import Trial

PROBE = "linear_probe"
ZERO_SHOT = "zero_shot"
UNMOVED = GradientSpec(epochs=1, batch_size=65_536, learning_rate=1e-9)
"""A training too small to move a float32 weight: what was fitted is the adapter."""

_STEP_SIZES = ("learning_rate", "rate")  # what trainers call them
_LEAST_SIZE, _LARGEST_SIZE = 1 / 4, 7 / 8  # of the canvas

Method = TypeVar("Method", InputTransformSpec, LabelMappingSpec, TrainerSpec)


@dataclass(frozen=True)
class Candidate:
    """One adapter to try, its epochs aside. What does not train is tried once, as it is fitted."""

    name: str
    input_transform: InputTransformSpec
    label_mapping: LabelMappingSpec
    trainer: TrainerSpec
    trains: bool = True

    def methods(self, *, epochs: int) -> dict[str, Any]:
        """Its share of the spec of a training."""
        trainer = self.trainer.model_copy(update={"epochs": epochs}) if self.trains else self.trainer
        return {"input_transform": self.input_transform, "label_mapping": self.label_mapping, "trainer": trainer}


@dataclass(frozen=True)
class Space:
    """`fixed` are tried first, in order; `cells` are those that train, by name, the most promising first."""

    fixed: Sequence[Candidate]
    cells: Mapping[str, tuple[InputTransformSpec, LabelMappingSpec]]
    trainers: Mapping[str, TrainerSpec]
    screened: Sequence[Mapping[str, Any]]
    canvas_size: int
    searched: Sequence[str]

    def start(self, place: int) -> dict[str, Any]:
        """The cell at this place as a proposal, every setting at its default."""
        proposal: dict[str, Any] = {"cell": list(self.cells)[place], "trainer": next(iter(self.trainers))}
        transform, _ = self.cells[proposal["cell"]]
        step_size = self._step_size(proposal["trainer"])
        if step_size is not None:
            proposal[step_size[0]] = step_size[1]
        if self._is_open(transform):
            least, largest = self._sizes()
            proposal[f"{transform.kind}.image_size"] = min(max(transform.size_on(self.canvas_size), least), largest)
        return proposal

    def suggest(self, trial: Trial) -> Candidate:
        """The candidate that the trial stands for; asked again the same."""
        cell = trial.suggest_categorical("cell", list(self.cells))
        transform, mapping = self.cells[cell]
        label = trial.suggest_categorical("trainer", list(self.trainers))
        trainer, step_size = self.trainers[label], self._step_size(label)
        if step_size is not None:
            name, middle = step_size
            value = trial.suggest_float(name, middle / 10, middle * 10, log=True)
            trainer = trainer.model_copy(update={name.rpartition(".")[2]: float(f"{value:.3g}")})
        if self._is_open(transform):
            size = trial.suggest_int(f"{transform.kind}.image_size", *self._sizes())
            transform = transform.model_copy(update={"image_size": size})
        return Candidate(f"{transform.kind} + {mapping.kind}", transform, mapping, trainer)

    def _step_size(self, label: str) -> tuple[str, float] | None:
        trainer = self.trainers[label]
        names = [name for name in _STEP_SIZES if hasattr(trainer, name)]
        if not names or "learning_rate" not in self.searched:
            return None
        return f"{label}.{names[0]}", float(getattr(trainer, names[0]))

    def _sizes(self) -> tuple[int, int]:
        return max(2, int(_LEAST_SIZE * self.canvas_size)), max(2, int(_LARGEST_SIZE * self.canvas_size))

    def _is_open(self, transform: InputTransformSpec) -> bool:
        return "image_size" in self.searched and getattr(transform, "image_size", "set") is None


def search_space(spec: AutoSpec, context: JobContext) -> Space:
    """The space of a spec: every cell screened on a sample, the impossible ones left out and told.

    With `spec.diagnosed` the best cells are sub-jobs first, whose predicted accuracy orders them; with `spec.ranking`
    what that says of them.
    """
    known = _known_before(spec, context)
    outputs, canvas_size = known["outputs"], int(known["canvas"])
    transforms = spec.input_transforms or DEFAULT_TRANSFORMS
    mappings = spec.label_mappings or _default_mappings(outputs)
    grid = RankSpec(
        dataset=spec.dataset,
        backbones=[spec.backbone],
        input_transforms=list(transforms),
        label_mappings=list(mappings),
        samples=spec.samples,
        seed=spec.seed,
    )
    cells = screen(grid, context, chosen_samples(grid, context))
    possible = sorted((cell for cell in cells if cell.error is None), key=lambda cell: cell.promise, reverse=True)

    def methods(cell: Cell) -> tuple[InputTransformSpec, LabelMappingSpec]:
        return transforms[cell.input_transform], mappings[cell.label_mapping]

    predicted = _diagnosed(spec, context, grid, [cell for cell in possible if cell.trains][: spec.diagnosed])
    for cell in possible:
        transform, mapping = (method.model_dump(mode="json") for method in methods(cell))
        for row in known["ranked"]:
            if (row["input_transform"], row["label_mapping"]) == (transform, mapping):
                predicted.setdefault(cell.name, float(row["accuracy"]))
    possible.sort(key=lambda cell: predicted.get(cell.name, -1.0), reverse=True)

    fixed = list(_baselines(outputs))
    fixed += [
        Candidate(_name(*methods(cell)), *methods(cell), UNMOVED, trains=False)
        for cell in possible
        if not cell.trains and methods(cell)[1] != TextSpec()
    ]
    places_t, places_m = _labels(transforms), _labels(mappings)
    return Space(
        fixed=fixed,
        cells={
            f"{places_t[cell.input_transform]} + {places_m[cell.label_mapping]}": methods(cell)
            for cell in possible
            if cell.trains
        },
        trainers=dict(zip(_labels(spec.trainers or DEFAULT_TRAINERS), spec.trainers or DEFAULT_TRAINERS, strict=True)),
        screened=[_told(cell, *methods(cell), predicted.get(cell.name)) for cell in cells],
        canvas_size=canvas_size,
        searched=spec.search,
    )


def _known_before(spec: AutoSpec, context: JobContext) -> Mapping[str, Any]:
    """The backbone's outputs and canvas, and the cells of the ranking; kept in a checkpoint, since a job of sub-jobs
    comes here more than once, and the ranking may have been deleted by then.
    """
    kept = context.observer.load_checkpoint("search_space")
    if kept is None:
        backbone = context.load_backbone(spec.backbone)
        ranked = _ranked(spec, context.load_ranking(spec.ranking)) if spec.ranking is not None else []
        state = {"outputs": list(backbone.available_outputs), "canvas": backbone.canvas_size, "ranked": ranked}
        kept = Checkpoint(1, state, {})
        context.observer.save_checkpoint("search_space", kept)
    return kept.state


def _ranked(spec: AutoSpec, ranking: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ranking's cells around this backbone, with the accuracy that it found or predicted."""
    cells = []
    for row in ranking["cells"]:
        known = (row["trained"] or {}).get("validation_accuracy", (row["predicted"] or {}).get("accuracy"))
        if row["backbone"] == spec.backbone and known is not None:
            cells.append({name: row[name] for name in ("input_transform", "label_mapping")} | {"accuracy": known})
    return cells


def _default_mappings(outputs: Sequence[str]) -> list[LabelMappingSpec]:
    mappings: list[LabelMappingSpec] = [LinearSpec(start="probe")] if "embedding" in outputs else []
    if "source_logits" in outputs:
        mappings += [IterativeSpec(), BayesianPlusSpec()]
    if "image_text" in outputs:
        mappings.append(TextSpec())
    return mappings


def _baselines(outputs: Sequence[str]) -> Iterator[Candidate]:
    """The two that are tried whatever the lists say, as `reprogram` computes them beside its adapter."""
    if "embedding" in outputs:
        yield Candidate(PROBE, IdentitySpec(), LinearSpec(start="probe"), UNMOVED, trains=False)
    if "image_text" in outputs:
        yield Candidate(ZERO_SHOT, IdentitySpec(), TextSpec(), UNMOVED, trains=False)


def _diagnosed(spec: AutoSpec, context: JobContext, grid: RankSpec, cells: Sequence[Cell]) -> dict[str, float]:
    """Predicted accuracy by cell; nothing of a cell whose diagnosis failed."""
    if not cells:
        return {}
    context.observer.phase("diagnosing")
    specs = {
        f"diagnosis-{cell.name}": DiagnoseSpec(
            dataset=spec.dataset,
            backbone=spec.backbone,
            input_transform=grid.input_transforms[cell.input_transform],
            label_mapping=grid.label_mappings[cell.label_mapping],
            samples=spec.samples,
            device=spec.device,
            seed=spec.seed,
        )
        for cell in cells
    }
    ends = context.sub_jobs.run(specs, context)
    results = {cell.name: ends[f"diagnosis-{cell.name}"].result for cell in cells}
    accuracies = {name: result["predicted"]["accuracy"] for name, result in results.items() if result is not None}
    return {name: float(accuracy) for name, accuracy in accuracies.items() if accuracy is not None}


def _labels(methods: Sequence[Method]) -> list[str]:
    """Their kinds, with a number where one kind stands there twice: names that a study keeps."""
    kinds = [method.kind for method in methods]
    return [kind if kinds.count(kind) == 1 else f"{kind} {kinds[:n].count(kind) + 1}" for n, kind in enumerate(kinds)]


def _name(transform: InputTransformSpec, mapping: LabelMappingSpec) -> str:
    return f"{transform.kind} + {mapping.kind}"


def _told(
    cell: Cell, transform: InputTransformSpec, mapping: LabelMappingSpec, predicted: float | None
) -> dict[str, Any]:
    return {
        "input_transform": transform.model_dump(mode="json"),
        "label_mapping": mapping.model_dump(mode="json"),
        "untrained_accuracy": cell.untrained,
        "predicted_accuracy": predicted,
        "error": cell.error and dict(cell.error),
    }

"""How much work a spec asks for: images passed through the backbone, the unit of usage and of estimates.

A forward and a backward pass count as one each. Decoding, baselines' fits and eigenvalues are not counted: they are in
the pace that recorded runs show.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mr_core.jobs.auto.halving import rungs
from mr_core.jobs.auto.spec import DEFAULT_TRAINERS, DEFAULT_TRANSFORMS
from mr_core.jobs.diagnose.blocks import n_passes, stretches
from mr_core.jobs.diagnose.spec import SHORT_TRAINING_SAMPLES, short_trainer
from mr_core.jobs.reprogram.spec import Evaluation

_SEEDED = 2  # trials of a search that are trained from further seeds
_WITHOUT_KERNEL = 2  # passes of a diagnosis' sample: as it is, and in the input transform


def images_passed(
    spec: Mapping[str, Any], *, splits: Mapping[str, int], n_classes: int, epochs: int | None = None
) -> int | None:
    """Images through the backbone in a whole run of a stored spec; None for a kind that is not counted.

    `epochs` are those that were run, where training has ended early.
    """
    match spec.get("kind"):
        case "diagnose":
            in_blocks = _kernel_images(spec, splits, n_classes) if _blocks(spec, splits, n_classes) else 0
            return _diagnosed(spec, splits, n_classes) - in_blocks
        case "kernel_block":
            n_rows = (int(spec["stop"]) - int(spec["start"])) * n_passes(spec["kernel"], n_classes)
            return _samples(spec, splits) + 2 * n_rows  # its mapping is fitted on the whole subsample
        case "reprogram":
            return _reprogrammed(spec, splits, epochs)
        case "trial":
            return _reprogrammed(spec, {**splits, "test": 0}, epochs)
        case "prime":
            asked = int(splits.get("train", 0)) + int(splits.get("test", 0))
            return asked + _reprogrammed(spec, splits, epochs)
        case "rank":
            return _cells(spec, without="label_mappings") * _samples(spec, splits)
        case "auto":
            screened = len(spec["input_transforms"] or DEFAULT_TRANSFORMS) * _samples(spec, splits)
            winner = _of_search(spec, epochs=int(spec["max_epochs"]), repeats=int(spec["seeds"]))
            return screened + _reprogrammed({**winner, "evaluation": spec["evaluation"]}, splits, epochs)
        case "train_source":
            return _source_trained(spec, splits, n_classes, epochs)
        case "evaluate":
            return int(splits.get(spec.get("split", "test"), 0))
        case _:
            return None


def n_parts(spec: Mapping[str, Any], *, splits: Mapping[str, int], n_classes: int) -> int:
    """Sub-jobs of a job at most, and theirs; 0 for a kind that has none."""
    match spec.get("kind"):
        case "rank":
            return _survivors(spec) * (1 + len(_blocks(spec, splits, n_classes))) + _finalists(spec)
        case "diagnose":
            return len(_blocks(spec, splits, n_classes))
        case "auto":
            return int(spec["diagnosed"]) + sum(_trials(spec).values()) + (_SEEDED if int(spec["seeds"]) > 1 else 0)
        case _:
            return 0


def n_waits(spec: Mapping[str, Any], parts: int) -> int:
    """How often a job with so many sub-jobs waits for some of them, about."""
    return math.ceil(parts / int(spec["parallel"])) if spec.get("kind") == "auto" else min(parts, 1)


def images_of_parts(spec: Mapping[str, Any], *, splits: Mapping[str, int], n_classes: int) -> int:
    """Images passed in a job's sub-jobs, which count as theirs and not as the job's."""
    match spec.get("kind"):
        case "rank":
            fitting = len(_blocks(spec, splits, n_classes)) * _samples(spec, splits)
            trials = _finalists(spec) * _reprogrammed(_as_trial(spec), {**splits, "test": 0}, None)
            return _survivors(spec) * (_diagnosed(spec, splits, n_classes) + fitting) + trials
        case "diagnose":
            blocks = _blocks(spec, splits, n_classes)
            return len(blocks) * _samples(spec, splits) + _kernel_images(spec, splits, n_classes) if blocks else 0
        case "auto":
            without_test = {**splits, "test": 0}
            tried = sum(
                n * _reprogrammed(_of_search(spec, epochs=epochs), without_test, None)
                for epochs, n in _trials(spec).items()
            )
            if int(spec["seeds"]) > 1:
                seeded = _of_search(spec, epochs=int(spec["max_epochs"]), repeats=int(spec["seeds"]))
                tried += _SEEDED * _reprogrammed(seeded, without_test, None)
            return tried + int(spec["diagnosed"]) * _diagnosed(spec, splits, n_classes)
        case _:
            return 0


def training_images(spec: Mapping[str, Any], *, splits: Mapping[str, int], epochs: int | None = None) -> int:
    """The part of them in the epochs of one training, which a budget of seconds cuts short."""
    trainer = spec.get("trainer") or {}
    n_fitted, n_validation = _parts(spec, splits)
    passes = _passes_a_step(trainer) + _refits(spec.get("label_mapping") or {})
    start = n_validation if trainer.get("kind", "gradient") != "gradient" else 0  # the untrained adapter is judged too
    return _views(spec) * (start + (passes * n_fitted + n_validation) * (epochs or int(trainer.get("epochs", 1))))


def n_trainings(spec: Mapping[str, Any]) -> int:
    """How often a job trains: its repeats, and the control on a random backbone."""
    return int(spec.get("repeats", 1)) + bool((spec.get("evaluation") or {}).get("random_backbone"))


def _reprogrammed(spec: Mapping[str, Any], splits: Mapping[str, int], epochs: int | None) -> int:
    _, n_validation = _parts(spec, splits)
    n_test = int(splits.get("test", 0))
    trained = n_trainings(spec) * training_images(spec, splits=splits, epochs=epochs)
    return int(splits.get("train", 0)) + n_test + trained + _views(spec) * (n_validation + n_test)


def _source_trained(spec: Mapping[str, Any], splits: Mapping[str, int], n_classes: int, epochs: int | None) -> int:
    """Passes through the network; those through the frozen base beside them, once each image."""
    _, n_validation = _parts(spec, splits)
    n_test = int(splits.get("test", 0))
    mapped = int(splits.get("train", 0)) + n_test if spec.get("backbone") is not None else 0
    kernel = spec.get("tangent_kernel")
    diagnosed = 2 * _kernel_images(kernel, splits, n_classes) if kernel else 0
    return mapped + diagnosed + training_images(spec, splits=splits, epochs=epochs) + n_validation + n_test


def _cells(spec: Mapping[str, Any], *, without: str = "") -> int:
    families = ("backbones", "input_transforms", "label_mappings")
    return math.prod(len(spec[family]) for family in families if family != without)


def _samples(spec: Mapping[str, Any], splits: Mapping[str, int]) -> int:
    return min(int(spec.get("samples", 0)), int(splits.get("train", 0)))


def _diagnosed(spec: Mapping[str, Any], splits: Mapping[str, int], n_classes: int) -> int:
    trained = _short_training_images(spec, splits)
    return _samples(spec, splits) * _WITHOUT_KERNEL + _kernel_images(spec, splits, n_classes) + trained


def _short_training_images(spec: Mapping[str, Any], splits: Mapping[str, int]) -> int:
    """Of both halves; a head alone trains on features, an adapter is trained already."""
    is_head = (spec.get("input_transform") or {}).get("kind") == "identity"
    is_wanted = spec.get("short_training", True) and spec.get("adapter") is None
    if is_head or not is_wanted or spec.get("kernel", "full") != "full":
        return 0
    mappings = spec.get("label_mappings") or [spec.get("label_mapping") or {}]
    an_epoch = 3 if any(map(_refits, mappings)) else 2
    n_samples = min(_samples(spec, splits), SHORT_TRAINING_SAMPLES)
    return n_samples * (an_epoch * short_trainer(n_samples // 2).epochs + 1)


def _kernel_images(spec: Mapping[str, Any], splits: Mapping[str, int], n_classes: int) -> int:
    return _samples(spec, splits) * (2 if spec.get("kernel") == "pseudo" else 2 * n_classes)


def _survivors(spec: Mapping[str, Any]) -> int:
    return min(int(spec["survivors"]), _cells(spec))


def _finalists(spec: Mapping[str, Any]) -> int:
    return min(int(spec.get("finalists", 0)), _survivors(spec))


def _as_trial(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A ranking's finalist, of whichever label mapping costs most."""
    refits = [mapping for mapping in spec["label_mappings"] if _refits(mapping)]
    return {
        "trainer": spec["trainer"],
        "label_mapping": (refits or spec["label_mappings"])[0],
        "evaluation": {"validation_fraction": Evaluation().validation_fraction},
    }


def _trials(spec: Mapping[str, Any]) -> dict[int, int]:
    """Trainings of a search by their epochs, as halving leaves them where no budget of seconds ends it."""
    n, reduction = int(spec["budget"]["max_trials"]), int(spec["reduction"])
    steps = rungs(least=int(spec["min_epochs"]), most=int(spec["max_epochs"]), reduction=reduction)
    return {epochs: math.ceil(n / reduction**step) for step, epochs in enumerate(steps)}


def _of_search(spec: Mapping[str, Any], *, epochs: int, repeats: int = 1) -> Mapping[str, Any]:
    """One training of a search, of whichever trainer and label mapping cost most."""
    trainers = spec["trainers"] or [trainer.model_dump(mode="json") for trainer in DEFAULT_TRAINERS]
    dearest = max(trainers, key=_passes_a_step)
    refits = not spec["label_mappings"] or any(map(_refits, spec["label_mappings"]))
    return {
        "trainer": {**dearest, "epochs": epochs},
        "label_mapping": {"refit": "each_epoch"} if refits else {},
        "evaluation": {"validation_fraction": spec["evaluation"]["validation_fraction"]},
        "repeats": repeats,
    }


def _passes_a_step(trainer: Mapping[str, Any]) -> int:
    """Of a batch: forward and backward, or forward passes alone."""
    match trainer.get("kind"):
        case "zeroth_order":
            return int(trainer["directions"]) + 1
        case "spsa":
            return 2 * int(trainer["draws"])
        case "cma_es":
            return int(trainer["population"])
        case _:
            return 2


def _views(spec: Mapping[str, Any]) -> int:
    """Canvases of an image, each of which takes a pass."""
    return int((spec.get("input_transform") or {}).get("prompts", 1))


def _refits(mapping: Mapping[str, Any]) -> bool:
    always = mapping.get("kind") in ("iterative", "probabilistic_reweighting")
    return bool(mapping.get("refit", "each_epoch" if always else None) == "each_epoch")


def _blocks(spec: Mapping[str, Any], splits: Mapping[str, int], n_classes: int) -> Sequence[range]:
    """Those that a diagnosis has by its number of rows; a transform with long rows has more, a head alone none."""
    if (spec.get("input_transform") or {}).get("kind") == "identity":
        return ()
    passes = n_passes(spec.get("kernel", "full"), n_classes)
    return stretches(_samples(spec, splits), passes=passes, block_samples=spec.get("block_samples"))


def _parts(spec: Mapping[str, Any], splits: Mapping[str, int]) -> tuple[int, int]:
    n_train = int(splits.get("train", 0))
    n_validation = round(n_train * float((spec.get("evaluation") or {}).get("validation_fraction", 0)))
    return n_train - n_validation, n_validation

"""The run of a priming: one pass over the black box, then everything is local."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mr_core import baselines
from mr_core.adapter import save_adapter
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.primed import primed
from mr_core.backbones.remote.cost import Cost
from mr_core.backbones.weights import state_sha256
from mr_core.baselines import FrozenOutputs, Part, brief_metrics
from mr_core.errors import CallBudgetSpent, RemoteError, SpecError
from mr_core.evaluation import evaluate, predict_logits
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.features import outputs_of_parts
from mr_core.jobs.outcome import Artifact, JobOutcome
from mr_core.jobs.places import Places, divided
from mr_core.jobs.preparation import ready_backbone
from mr_core.jobs.prime.priming import fit_head
from mr_core.jobs.prime.spec import PrimeSpec
from mr_core.jobs.prime.zero_shot import ZeroShot, logits_of, zero_shot
from mr_core.jobs.remote_account import Account, open_account, plain_cost
from mr_core.jobs.remote_rules import require
from mr_core.jobs.reprogram.parts import feature_parts, read_parts, training_positions
from mr_core.jobs.reprogram.run import reprogram_files
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.jobs.reprogram.training import train_repeats
from mr_core.jobs.reprogram.verdict import judge
from mr_core.jobs.scale import settle_image_size
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.predictions import predictions_file
from mr_core.provenance import provenance
from mr_core.reprogrammed import ReprogrammedModel

_ZERO_SHOT = {"zero_shot": "the API's own answers"}


@dataclass(frozen=True)
class Candidate:
    """What may be returned: a model, the spec that builds it again, and its logits by part."""

    model: ReprogrammedModel
    spec: ReprogramSpec
    logits: Mapping[Part, Tensor]


def prime(spec: PrimeSpec, context: JobContext) -> JobOutcome:
    """Ask, prime, reprogram, and return what does better on validation images."""
    watch, dataset = Stopwatch(context.observer), context.dataset
    watch.begin("embedding")
    api = context.load_backbone(spec.backbone).to(context.device)
    places = divided(dataset, validation_fraction=spec.evaluation.validation_fraction, seed=spec.seed)
    train, validation = training_positions(places, context)
    if validation is None or not len(validation):
        raise SpecError(
            f"{len(train)} training images leave none to compare on", param="evaluation.validation_fraction"
        )
    account, answers = _ask(spec, context, api, places)
    encoder = ready_backbone(context, spec.encoder, spec.input_transform)
    before = state_sha256(encoder)
    frozen = outputs_of_parts(places, context, encoder)

    watch.begin("training")
    local, told, outputs = _primed(spec, context, encoder, api, frozen, answers)
    settled, scales = settle_image_size(
        spec.input_transform, spec.label_mapping, context, local, train=train, validation=validation
    )
    local_spec = spec.local().model_copy(update={"input_transform": settled})
    if isinstance(settled, IdentitySpec):
        parts = feature_parts(outputs, spec.label_mapping.reads)
    else:
        parts = read_parts(places, context, local, settled.build(local.preprocessing))
    own = zero_shot(context, api, answers)
    scores = _baselines(local_spec, context, local, outputs, own)
    (trained,) = train_repeats(local_spec, context, local, parts)

    watch.begin("evaluating")
    judged: list[Part] = ["validation", *(["test"] if "test" in parts else [])]  # type: ignore[list-item]
    logits: dict[Part, Tensor] = {
        part: predict_logits(trained.trainable, parts[part], context.device, observer=context.observer)
        for part in judged
    }
    reached = brief_metrics(logits["validation"], parts["validation"].labels)["accuracy"]
    is_primed = own is None or reached >= own.accuracy - spec.tolerance
    chosen = Candidate(trained.model, local_spec, logits)
    if not is_primed:
        assert own is not None
        chosen = _as_adapter(spec, context, api, own, answers, account, places)
    labels = {part: parts[part].labels for part in judged}
    metrics: dict[str, Any] = {"validation": None, "test": None} | {
        part: evaluate(values, labels[part], dataset.classes) for part, values in chosen.logits.items()
    }
    if not is_primed and metrics["test"] is not None:
        scores["zero_shot"] = {part: brief_metrics(chosen.logits[part], labels[part]) for part in judged}
    if state_sha256(encoder) != before:
        raise RuntimeError("the frozen encoder changed during training")

    watch.begin("publishing")
    gate = {
        "returned": "primed" if is_primed else "zero_shot",
        "tolerance": spec.tolerance,
        "primed": reached,
        "zero_shot": None if own is None else own.accuracy,
        "zero_shot_by": None if own is None else own.by,
    }
    verdict = judge(metrics, scores, names=_ZERO_SHOT)
    verdict["reason"] += _gate_in_words(gate)
    record = {
        "metrics": {part: values and {k: values[k] for k in ("accuracy", "loss")} for part, values in metrics.items()},
        "baselines": scores,
        "verdict": verdict,
        "gate": gate,
        "primed": {"backbone": spec.backbone, "sha256": api.state_sha256, "classes": list(api.source_classes or ())},
        "provenance": provenance(dataset_sha256=dataset.sha256),
    }
    history = trained.history
    result = {
        "metrics": metrics,
        "baselines": scores,
        "verdict": verdict,
        "gate": gate,
        "priming": told,
        "timing": {"seconds": watch.total(), "images_per_second": None, "phases": watch.phases()},
        "training": {"epochs": len(history.rows), "kept_epoch": history.kept_epoch,
                     "stopped_by_budget": history.stopped_by_budget, "stopped_early": history.stopped_early},
        "seeds": None,
        "image_size": {"chosen": chosen.model.input_transform.image_size,
                       "tried": None if scales is None else [asdict(scale) for scale in scales]},
        "trainable_parameters": sum(parameter.numel() for parameter in chosen.model.adapter_parameters()),
        "backbone_unchanged": True if is_primed else None,
        **account.statement(),
    }  # fmt: skip
    adapter = save_adapter(chosen.model, spec=chosen.spec, classes=dataset.classes, record=record)
    files = reprogram_files(chosen.spec, chosen.model, result, history.rows, dataset.classes, record)
    return JobOutcome(result=result, adapter=adapter, artifacts=[*files, *_predictions(context, chosen, labels)])


def _ask(spec: PrimeSpec, context: JobContext, api: Backbone, places: Places) -> tuple[Account, FrozenOutputs]:
    """The API's answers for the training and validation images; CallBudgetSpent where they cost too much."""
    account = open_account(spec, context, api)
    if account.oracle is None:
        raise SpecError(f"{spec.backbone} is not remote: reprogram it, without a detour", param="backbone")
    asked: Places = {part: place for part, place in places.items() if part != "test"}
    if not account.oracle.spent.calls:
        cost = plain_cost(asked, context, api, account.oracle)
        require(account.oracle.limit, cost, what="one pass over the training images")
    return account, outputs_of_parts(asked, context, api)


def _primed(
    spec: PrimeSpec,
    context: JobContext,
    encoder: Backbone,
    api: Backbone,
    frozen: FrozenOutputs,
    answers: FrozenOutputs,
) -> tuple[Backbone, dict[str, Any], FrozenOutputs]:
    """The encoder with the head, how well it answers as the API does, and its outputs for the images alone."""
    beat = context.observer.beat
    probabilities = logits_of(answers, "train").softmax(1)
    embeddings = {part: outputs["embedding"].float() for part, outputs in frozen.outputs.items()}
    head = fit_head(embeddings["train"], probabilities, spec.priming, seed=spec.seed, beat=beat)
    with torch.no_grad():
        made = {part: head(values) for part, values in embeddings.items()}
    agreement = {
        part: float((made[part].argmax(1) == logits_of(answers, part).argmax(1)).double().mean())
        for part in ("train", "validation")
    }
    context.observer.message(f"primed: {agreement['validation']:.1%} of the validation images answered as the API does")
    outputs = FrozenOutputs(
        outputs={part: {"embedding": embeddings[part], "source_logits": made[part]} for part in embeddings},
        labels=frozen.labels,
    )
    return primed(encoder, head.weight, head.bias, source_classes=api.source_classes), {"agreement": agreement}, outputs


def _baselines(
    spec: ReprogramSpec, context: JobContext, local: Backbone, outputs: FrozenOutputs, own: ZeroShot | None
) -> dict[str, dict[str, Any] | None]:
    classes = context.dataset.classes
    mapping = spec.label_mapping.build(local, classes).cpu()
    has_weights = any(True for _ in mapping.parameters())
    brief = None if own is None else {name: own.validation[name] for name in ("accuracy", "loss")}
    return {
        "majority": baselines.majority(outputs, n_classes=len(classes)),
        "mapping_only": None if has_weights else baselines.mapping_only(outputs, mapping),
        "linear_probe": baselines.linear_probe(outputs, n_classes=len(classes), observer=context.observer),
        "zero_shot": None if brief is None else {"validation": brief, "test": None},
        "random_backbone": None,
    }


def _as_adapter(
    spec: PrimeSpec,
    context: JobContext,
    api: Backbone,
    own: ZeroShot,
    answers: FrozenOutputs,
    account: Account,
    places: Places,
) -> Candidate:
    """The API's own zero-shot; its test images are asked where the budget bears them."""
    logits: dict[Part, Tensor] = {"validation": own.mapping(logits_of(answers, "validation"))}
    oracle = account.oracle
    assert oracle is not None
    if "test" in places:
        test: Places = {"test": places["test"]}
        cost = plain_cost(test, context, api, oracle)
        if oracle.limit.bears(Cost(oracle.spent.calls, oracle.spent.images) + cost):
            try:
                logits["test"] = own.mapping(logits_of(outputs_of_parts(test, context, api), "test"))
            except (CallBudgetSpent, RemoteError) as error:  # what was asked before is paid for
                context.observer.message(f"the test images are not judged: {error.detail}", level="warning")
        else:
            context.observer.message("the budget does not bear the test images: they are not judged", level="warning")
    model = ReprogrammedModel(IdentitySpec().build(api.preprocessing), api, own.mapping)
    changes = {"backbone": spec.backbone, "input_transform": IdentitySpec(), "label_mapping": FrequentSpec()}
    return Candidate(model, spec.local().model_copy(update={**changes, "budget": spec.budget}), logits)


def _gate_in_words(gate: Mapping[str, Any]) -> str:
    if gate["zero_shot"] is None:
        return " The API has no zero-shot answer for these classes to compare with."
    found = f"the primed model reaches {gate['primed']:.1%}, the API's own zero-shot {gate['zero_shot']:.1%}"
    kept = "the primed model, which needs no calls" if gate["returned"] == "primed" else "the API's zero-shot"
    return f" Of both {found}: the adapter is {kept}."


def _predictions(context: JobContext, chosen: Candidate, labels: Mapping[Part, Any]) -> list[Artifact]:
    if "test" not in chosen.logits:
        return []
    dataset = context.dataset
    logits = chosen.logits["test"]
    return [predictions_file(logits, labels["test"], images=dataset.names("test"), classes=dataset.classes)]

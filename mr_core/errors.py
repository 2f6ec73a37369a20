"""Everything mr_core raises on purpose. Each class has a stable `code`; no HTTP status is known here."""


class ReprogrammingError(Exception):
    """The job cannot succeed as asked; `param` names the part of the request at fault, if one is."""

    code = "reprogramming_error"

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param


class SpecError(ReprogrammingError):
    """Valid JSON, but impossible with this backbone or dataset."""

    code = "impossible_spec"


class DatasetError(ReprogrammingError):
    """The dataset cannot be read, or lacks what training needs."""

    code = "invalid_dataset"


class ArchiveError(DatasetError):
    """The archive itself is refused: not an archive, unsafe names, a bomb, too large."""

    code = "invalid_archive"


class NotAnArchive(ArchiveError):
    """The file is none of the accepted archive formats; the detail says what it looks like."""

    code = "not_an_archive"


class UnsafeArchive(ArchiveError):
    """Names that leave the folder or collide, links, devices, encryption, archives within."""

    code = "unsafe_archive"


class ArchiveBomb(ArchiveError):
    """Inflates to far more than it stores, or to more than it declares."""

    code = "archive_bomb"


class ArchiveTooLarge(ArchiveError):
    """More entries or bytes than the limits allow."""

    code = "archive_too_large"


class UnknownLayout(ArchiveError):
    """A sound archive whose folders or arrays do not say which class each image has."""

    code = "unknown_layout"


class OneClass(DatasetError):
    """A single class: nothing to tell apart."""

    code = "one_class"


class EmptyClass(DatasetError):
    """A class without images to train on."""

    code = "empty_class"


class ClassTooSmall(DatasetError):
    """A class with fewer than two images to train on."""

    code = "class_too_small"


class UnreadableImage(DatasetError):
    """An image that is corrupt, animated, too large, or not jpeg, png or webp."""

    code = "unreadable_image"


class BackboneError(ReprogrammingError):
    """Unknown backbone, wrong checksum, or weights that do not fit the architecture."""

    code = "invalid_backbone"


class BackboneUnavailable(BackboneError):
    """The weights are neither in the local cache nor to be fetched from the hub."""

    code = "backbone_unavailable"


class RemoteError(BackboneError):
    """A remote backbone gives nothing that can be used."""

    code = "remote_error"


class RemoteNotAnswering(RemoteError):
    """A remote backbone is late, over its limits, broken or not there, and stays so when asked again."""

    code = "remote_not_answering"


class RemoteRefused(RemoteError):
    """A remote backbone refuses what it is sent: wrong URL, secret or request."""

    code = "remote_refused"


class RemoteAnswerInvalid(RemoteError):
    """An answer that is not what was registered: no JSON, other classes, not finite, probabilities that miss 1."""

    code = "remote_answer_invalid"


class CallBudgetSpent(ReprogrammingError):
    """The calls or images that the job may spend on its remote backbone are spent, or would not suffice."""

    code = "call_budget_spent"


class TrainingDiverged(ReprogrammingError):
    """The loss stopped being finite; carries the step."""

    code = "diverged"

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"the loss became {loss} at step {step}: lower trainer.learning_rate", param="trainer.learning_rate"
        )
        self.step = step


class KernelError(ReprogrammingError):
    """The tangent kernel cannot be computed as asked: over the memory cap, or a non-finite Jacobian of a sample."""

    code = "kernel_error"

    def __init__(self, detail: str, *, param: str | None = None, sample: int | None = None) -> None:
        super().__init__(detail, param=param)
        self.sample = sample


class ScoreError(ReprogrammingError):
    """A score cannot be computed: arrays that are not finite, or not of the shape, range or kind that it reads."""

    code = "score_error"


class AdapterError(ReprogrammingError):
    """Not an adapter, of a newer format, or for another backbone."""

    code = "invalid_adapter"


class AdapterTooNew(AdapterError):
    """An adapter of a newer format, or with features that this version lacks."""

    code = "adapter_too_new"


class JobCancelled(Exception):
    """Raised by an observer to stop a run; not a failure."""

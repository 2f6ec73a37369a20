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


class BackboneError(ReprogrammingError):
    """Unknown backbone, wrong checksum, or weights that do not fit the architecture."""

    code = "invalid_backbone"


class BackboneUnavailable(BackboneError):
    """The weights are neither in the local cache nor to be fetched from the hub."""

    code = "backbone_unavailable"


class TrainingDiverged(ReprogrammingError):
    """The loss stopped being finite; carries the step."""

    code = "diverged"

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"the loss became {loss} at step {step}: lower trainer.learning_rate", param="trainer.learning_rate"
        )
        self.step = step


class KernelError(ReprogrammingError):
    """The tangent kernel cannot be computed as asked: over the memory cap, or a non-finite Jacobian."""

    code = "kernel_error"


class AdapterError(ReprogrammingError):
    """Not an adapter, of a newer format, or for another backbone."""

    code = "invalid_adapter"


class JobCancelled(Exception):
    """Raised by an observer to stop a run; not a failure."""

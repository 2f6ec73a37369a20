"""What made a result: versions and checksums, no times, so that equal runs leave equal records."""

import platform
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("torch", "timm", "open_clip_torch", "numpy", "pillow", "safetensors", "scikit-learn")


def provenance(*, dataset_sha256: str) -> dict[str, object]:
    """Versions of this library and of those whose numerics matter, the machine type, the dataset's checksum."""
    import mr_core

    return {
        "mr_core_version": mr_core.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name)) is not None},
        "dataset_sha256": dataset_sha256,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

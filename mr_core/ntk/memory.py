"""The cap on a kernel's memory, and what is said when it does not suffice."""

from mr_core.errors import KernelError

MEMORY_CAP_BYTES = 2 * 2**30

CHEAPER_KINDS = {"full": ("trace", "pseudo"), "trace": ("pseudo",), "pseudo": ()}


def require_memory(need: int, *, cap: int, kind: str, what: str) -> None:
    """KernelError naming need, cap and the cheaper kinds where `need` bytes are more than `cap`."""
    if need <= cap:
        return
    kinds = " or ".join(f"'{cheaper}'" for cheaper in CHEAPER_KINDS[kind])
    way_out = f"take the kernel {kinds}, or fewer samples" if kinds else "take fewer samples"
    raise KernelError(
        f"the {what} of the {kind} kernel needs {_size(need)} and the cap is {_size(cap)}: {way_out}", param="kernel"
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**28 else f"{n_bytes / 2**20:.2f} MiB"

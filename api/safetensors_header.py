"""Reads the header of a safetensors file and nothing else: an upload is not mapped before it is known to be sane.

Format: eight bytes of length, that much JSON, then the tensors one after another without a gap.
"""

import json
import math
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from mr_core.errors import BackboneError

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 100_000
_MAX_DIMENSIONS = 8
_DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1
}  # fmt: skip


def check_header(path: Path) -> int:
    """The number of tensors; BackboneError saying what is wrong with length, names, dtypes, shapes or total size."""
    with path.open("rb") as file:
        return check_stream(file, path.stat().st_size)


def check_stream(file: BinaryIO, n_bytes: int) -> int:
    """The same of so many bytes that begin where the file stands."""
    header, n_content = _read(file, n_bytes)
    header.pop("__metadata__", None)
    if not header:
        raise _refusal("it holds no tensor")
    if len(header) > MAX_TENSORS:
        raise _refusal(f"it holds {len(header)} tensors, at most {MAX_TENSORS} are read")
    spans = sorted(_span(name, entry) for name, entry in header.items())
    if spans[0][0] != 0 or any(before[1] != after[0] for before, after in pairwise(spans)):
        raise _refusal("its tensors overlap or leave gaps")
    if spans[-1][1] != n_content:
        raise _refusal(f"its header describes {spans[-1][1]} bytes of tensors, and {n_content} follow")
    return len(header)


def _read(file: BinaryIO, n_bytes: int) -> tuple[dict[str, Any], int]:
    if n_bytes < 8:
        raise _refusal(f"it has {n_bytes} bytes")
    (n_header,) = struct.unpack("<Q", file.read(8))
    if n_header > min(n_bytes - 8, MAX_HEADER_BYTES):
        raise _refusal(f"its first eight bytes announce a header of {n_header} bytes in a file of {n_bytes}")
    raw = file.read(n_header)
    try:
        header = json.loads(raw, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _refusal("its header is not JSON") from error
    if not isinstance(header, dict):
        raise _refusal("its header is not a JSON object")
    return header, n_bytes - 8 - n_header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refusal("its header repeats a name")
    return found


def _span(name: str, entry: Any) -> tuple[int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)], **rest} if not rest:
            pass
        case _:
            raise _refusal(f"its entry {name!r} is not dtype, shape and data_offsets")
    if dtype not in _DTYPE_BYTES:
        raise _refusal(f"the tensor {name!r} has dtype {dtype!r}; expected one of {', '.join(_DTYPE_BYTES)}")
    if len(shape) > _MAX_DIMENSIONS or not all(isinstance(side, int) and 0 <= side < 2**40 for side in shape):
        raise _refusal(f"the tensor {name!r} has the shape {shape}"[:200])
    if begin < 0 or end - begin != math.prod(shape) * _DTYPE_BYTES[dtype]:
        raise _refusal(f"the tensor {name!r} spans {end - begin} bytes, which {dtype} of shape {shape} does not have")
    return begin, end


def _refusal(found: str) -> BackboneError:
    return BackboneError(f"not a safetensors file that can be used: {found}", param="file")

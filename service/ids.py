"""Identifiers that sort by the time they were made."""

import secrets
import time
from typing import Literal

Prefix = Literal["job", "ds", "bb", "ad", "key", "wk", "wh", "msg", "up"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def new_id(prefix: Prefix) -> str:
    """`<prefix>_` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_{''.join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))}"

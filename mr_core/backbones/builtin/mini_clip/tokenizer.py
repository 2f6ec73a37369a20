"""Turns text into hashed character n-grams: no vocabulary file, no download, the same ids everywhere (torch-free)."""

import re
import unicodedata
import zlib
from functools import lru_cache

N_BUCKETS = 4096
MAX_WORDS = 24
_NGRAM_LENGTHS = (3, 4, 5)
_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """The lower-case words of `text` without accents or punctuation, at most `MAX_WORDS` of them."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return _WORD.findall(plain)[:MAX_WORDS]


@lru_cache(maxsize=20_000)
def ngram_ids(word: str) -> tuple[int, ...]:
    """Bucket ids in 1..N_BUCKETS of the word itself and of its character n-grams (0 is left for padding).

    The word is hashed with its ends marked, so that `art` and the start of `artichoke` differ.
    """
    marked = f"<{word}>"
    pieces = [marked]
    for length in _NGRAM_LENGTHS:
        if length < len(marked):
            pieces += [marked[i : i + length] for i in range(len(marked) - length + 1)]
    return tuple(1 + zlib.crc32(piece.encode()) % N_BUCKETS for piece in pieces)


def tokenize(text: str) -> list[tuple[int, ...]]:
    """The n-gram ids of each word; one padding word where the text has no word at all."""
    return [ngram_ids(word) for word in words(text)] or [(0,)]

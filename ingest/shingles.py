"""Shingles: what two texts are compared by.

A shingle is `SHINGLE_WORDS` words in a row. A word is a run of letters, digits and their marks, without its case and
with its accents composed (NFKC); in scripts that put no spaces between words (Chinese, kana, Thai, Lao, Khmer,
Burmese) every character with its marks is one. So punctuation, case, white space and the width of characters make no
difference. A text of fewer words is one shingle of all of them, and one without words has none.

Notable: a shingle is kept as a hash of 64 bits, so a text's shingles are a sorted array, the same on every machine.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
import regex

SHINGLE_WORDS: Final = 5
"""As in arXiv:2107.06499 (section 4.2) and in most work on training corpora since."""

_UNSPACED: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD: Final = regex.compile(
    rf"[\p{{L}}\p{{N}}--[{_UNSPACED}]][\p{{L}}\p{{N}}\p{{M}}--[{_UNSPACED}]]*|[{_UNSPACED}]\p{{M}}*", regex.V1
)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(29)


def shingles(text: str) -> np.ndarray:
    """Return the hashes of a text's shingles, each once, in ascending order: (n,) uint64."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # One word at a time: a list of them would take ten times the memory of a long text.
    words = np.fromiter((_word_hash(match[0]) for match in _WORD.finditer(plain)), np.uint64)
    n_words = min(SHINGLE_WORDS, len(words))
    n_shingles = len(words) - n_words + 1 if n_words else 0
    hashes = np.zeros(n_shingles, np.uint64)
    for place in range(n_words):
        hashes = mixed(hashes, words[place : place + n_shingles])
    return np.unique(hashes)


def mixed(hashes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return hashes that also depend on the values, and on the order in which values are mixed in; both uint64."""
    products = (hashes ^ values) * _ODD  # modulo 2^64
    products ^= products >> _SHIFT
    return np.asarray(products)


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def jaccard_with(one: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Return what share of the shingles of a text and of each of some others both have: (others,) float64.

    Each has at least one shingle.
    """
    sizes = np.array([len(other) for other in others])
    together = np.concatenate(others)
    met = one.take(one.searchsorted(together), mode="clip") == together
    common = np.add.reduceat(met, np.cumsum(sizes) - sizes, dtype=np.int64)
    return np.asarray(common / (one.size + sizes - common))

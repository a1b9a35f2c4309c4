"""Content-based ids: 128 bits of BLAKE2b in lower-case base32, 26 characters.

The same content has the same id on every machine and in every run, so that doing a thing twice changes nothing.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final

_BYTES: Final = 16
_PAIRS: Final = ["".join(pair) for pair in product("abcdefghijklmnopqrstuvwxyz234567", repeat=2)]
_SHIFTS: Final = range(120, -1, -10)


def _text(digest: bytes) -> str:
    """Write 128 bits in base32 without padding; the standard library's way takes several times as long."""
    number = int.from_bytes(digest, "big") << 2
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def content_id(kind: str, *parts: str | int | bytes) -> str:
    """Return the id of a thing of some kind that the parts define.

    Every part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ; `kind` keeps a document and a
    passage of the same parts apart.
    """
    pieces: list[bytes] = []
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        pieces += (len(data).to_bytes(8, "little"), data)
    return _text(hashlib.blake2b(b"".join(pieces), digest_size=_BYTES, person=kind.encode("ascii")[:16]).digest())


def stream_id(kind: str, chunks: Iterable[bytes]) -> str:
    """Return the id of content too large to hold, such as a file of weights."""
    digest = hashlib.blake2b(digest_size=_BYTES, person=kind.encode("ascii")[:16])
    for chunk in chunks:
        digest.update(chunk)
    return _text(digest.digest())


def fresh_id() -> str:
    """Return a random id, for what has no content of its own: a run, a trace."""
    return _text(secrets.token_bytes(_BYTES))


def document_id(corpus: str, doc_key: str) -> str:
    """Return the id of a document, from its corpus and the corpus's own id for it."""
    return content_id("document", corpus, doc_key)


def passage_id(doc_id: str, ordinal: int, text: str) -> str:
    """Return the id of the ordinal-th passage (from 0) of a document."""
    return content_id("passage", doc_id, ordinal, text)


def text_hash(text: str) -> str:
    """Return the id of a text wherever it stands; repeated passages share it, and with it their encoding."""
    return content_id("text", text)


def query_id(prompt: str, target: str) -> str:
    """Return the id of a query that asks for one target after one prompt."""
    return content_id("query", prompt, target)


def sum_id(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return the id of a query that is a weighted sum of parts, or whose prompt stands in a chat template."""
    return content_id("query sum", *(json.dumps(part, sort_keys=True) for part in parts))


def mean_id(query_ids: Sequence[str]) -> str:
    """Return the id of a query that is the mean of others."""
    return content_id("query mean", *query_ids)

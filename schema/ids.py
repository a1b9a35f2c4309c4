"""Content-based ids: 128 bits of BLAKE2b in lower-case base32, 26 characters.

The same content has the same id on every machine and in every run, so that doing a thing twice changes nothing.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_BYTES: Final = 16
_LENGTH: Final = 26
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = ["".join(pair) for pair in product(_LETTERS, repeat=2)]
_SHIFTS: Final = range(120, -1, -10)


def _text(digest: bytes) -> str:
    """Write 128 bits in base32 without padding; the standard library's way takes several times as long."""
    number = int.from_bytes(digest, "big") << 2
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


@cache
def _pairs() -> "npt.NDArray[np.uint16]":
    """Return every two letters, as they lie in memory."""
    import numpy as np

    return np.frombuffer("".join(_PAIRS).encode(), np.uint16)


def _letters(digests: Sequence[bytes]) -> bytes:
    """Write many digests in base32, one after the other: two letters for each group of ten bits from the left."""
    import numpy as np

    halves = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)
    high, low = halves[:, :1], halves[:, 1:]
    pairs = np.concatenate(
        [
            high >> np.arange(54, 0, -10, dtype=np.uint64),
            (high << np.uint64(6)) | (low >> np.uint64(58)),
            low >> np.arange(48, 0, -10, dtype=np.uint64),
            low << np.uint64(2),
        ],
        axis=1,
    )
    written: bytes = _pairs()[pairs & np.uint64(1023)].tobytes()
    return written


def _texts(digests: Sequence[bytes]) -> list[str]:
    """Write many digests in base32."""
    joined = _letters(digests).decode("ascii")
    return [joined[start : start + _LENGTH] for start in range(0, len(joined), _LENGTH)]


def _column(digests: Sequence[bytes]) -> "pa.StringArray":
    """Write many digests in base32 as a column, for which no text of each is made."""
    import numpy as np
    import pyarrow as pa

    ends = np.arange(0, (len(digests) + 1) * _LENGTH, _LENGTH, dtype=np.int32)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(ends), pa.py_buffer(_letters(digests)))


def content_id(kind: str, *parts: str | int | bytes | memoryview) -> str:
    """Return the id of a thing of some kind that the parts define.

    Every part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ; `kind` keeps a document and a
    passage of the same parts apart.
    """
    return _text(_digest(kind, parts))


def content_ids(
    kind: str, things: Iterable[str | bytes], *, before: Sequence[str] = (), after: Sequence[str] = ()
) -> list[str]:
    """Return the ids of many things of a kind that differ in one part, with the same parts before and after it."""
    begun, end = _begun(kind).copy(), b"".join(map(_framed, after))
    begun.update(b"".join(map(_framed, before)))
    digests = []
    for thing in things:
        data = thing.encode("utf-8", "surrogatepass") if isinstance(thing, str) else thing
        digest = begun.copy()
        digest.update(b"".join((len(data).to_bytes(8, "little"), data, end)))
        digests.append(digest.digest())
    return _texts(digests)


def _digest(kind: str, parts: Sequence[str | int | bytes | memoryview]) -> bytes:
    digest = _begun(kind).copy()
    for part in parts:  # which may be large, and are not copied
        data = _bytes(part)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def _bytes(part: str | int | bytes | memoryview) -> bytes | memoryview:
    return part if isinstance(part, bytes | memoryview) else str(part).encode("utf-8", "surrogatepass")


def _framed(part: str | int | bytes) -> bytes:
    """Return a part's bytes after their number."""
    data = _bytes(part)
    return len(data).to_bytes(8, "little") + data


@cache
def _begun(kind: str) -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=_BYTES, person=kind.encode("ascii")[:16])


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


def document_ids(corpus: str, doc_keys: Iterable[str]) -> list[str]:
    """Return the ids of documents of a corpus."""
    return content_ids("document", doc_keys, before=[corpus])


def passage_id(doc_id: str, ordinal: int, text: str) -> str:
    """Return the id of the ordinal-th passage (from 0) of a document."""
    return content_id("passage", doc_id, ordinal, text)


def passage_and_text_ids(
    doc_ids: Sequence[str], document: Sequence[int], ordinal: Sequence[int], text: Sequence[str]
) -> tuple["pa.StringArray", "pa.StringArray"]:
    """Return the ids of passages, and the hashes of their texts.

    Every passage is of one of the documents by its place, and has an ordinal and a text.
    """
    begun_passage, begun_text = _begun("passage"), _begun("text")
    documents = [_framed(doc_id) for doc_id in doc_ids]
    ordinals = [_framed(place) for place in range(max(ordinal, default=-1) + 1)]
    passages, texts = [], []
    for of, place, one in zip(document, ordinal, text, strict=True):
        data = one.encode("utf-8", "surrogatepass")
        size = len(data).to_bytes(8, "little")
        digest = begun_passage.copy()
        digest.update(documents[of] + ordinals[place] + size)
        digest.update(data)
        passages.append(digest.digest())
        digest = begun_text.copy()
        digest.update(size)
        digest.update(data)
        texts.append(digest.digest())
    return _column(passages), _column(texts)


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


def identity_curvature_id(artifact: str) -> str:
    """Return the id of an encoder's curvature R = I, from its fitted state's; no row of the catalog has it."""
    return content_id("curvature", artifact, "identity")

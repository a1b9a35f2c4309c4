"""Files of results without a lake: a temporary one is made of them, so that everything that reads a lake reads them.

Notable: every text that a file lists becomes a document of one passage, called by the file's own id of it. A method is
what a record's field `method` says, or else the file's name; several files lie side by side that way. Which proponents
are right (`proponent_correct`) is kept as what each query says of itself, of all files together.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from proponent.lake import Lake, init
from proponent.query.imported_files import Listed, listed_of, viewer_records
from proponent.schema.errors import InputError
from proponent.schema.ids import text_hash
from proponent.schema.settings import SIDES
from proponent.store.full_text import build_full_text

Tell = Callable[[str], object]

_CORPUS: Final = "results"
_NAME: Final = 23
"""Characters of the name of imported traces."""
_KEY: Final = 200
"""Characters of an id that a text is called by; a longer one is called by its hash."""
_TEXTS: Final = "SELECT doc_key, passage_id FROM documents JOIN passages USING (doc_id)"


@contextmanager
def open_results(files: Sequence[Path], *, tell: Tell) -> Iterator[Lake]:
    """Give a lake of files in the form of `proponent export --format viewer`; it is gone afterwards.

    Raises InputError, which names the line, for files that are not of that form.
    """
    with tempfile.TemporaryDirectory(prefix="proponent-", ignore_cleanup_errors=True) as folder:
        read = _Read(files)
        tell(f"reading {', '.join(file.name for file in files)}")
        longest = read.write_corpus(Path(folder) / "corpus.jsonl")
        # In a folder of its own: files are called as people like, and so may be what is written here beside it.
        (Path(folder) / "lake").mkdir()
        with init(Path(folder) / "lake" / files[0].name) as lake:
            passages: dict[str, str] = {}
            if read.n_texts:
                tell(f"keeping {read.n_texts:,} texts for as long as they are shown")
                lake.ingest(Path(folder) / "corpus.jsonl", corpus=_CORPUS, id="id", text="text", max_chars=longest)
                rows = lake.sql(_TEXTS, max_rows=None, max_bytes=None)
                passages = {row["doc_key"]: row["passage_id"] for row in rows.to_dicts()}
                build_full_text(lake.store)
            for method, file in read.write_traces(Path(folder), passages).items():
                tell(f"storing what {method} lists")
                lake.import_traces(file, name=method, form="viewer")
            yield lake


class _Read:
    """Files of results, which are read twice: for their texts, and for what they list."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._first: dict[str, str] = {}
        """Hash of the first text of each key."""
        self._right: dict[tuple[str, str], set[str]] = {}
        """Keys of the right proponents by prompt and target, of the queries of which somebody says it."""
        self.n_texts = 0

    def write_corpus(self, path: Path) -> int:
        """Write every text once, and take note of what is right; return the length of the longest."""
        longest, written = 40, set[str]()
        with path.open("w", encoding="utf-8") as sink:
            for origin, record, listed in self._records():
                for side in SIDES:
                    keys, texts = self._keys(record, side), _texts(record, side)
                    for key, text in zip(keys, texts, strict=True):
                        if key not in written:
                            written.add(key)
                            sink.write(json.dumps({"id": key, "text": text}) + "\n")
                            longest = max(longest, len(text))
                self._note_right(origin, record, listed)
        self.n_texts = len(written)
        return longest

    def write_traces(self, folder: Path, passages: Mapping[str, str]) -> dict[str, Path]:
        """Write the records with the lake's ids in place of texts; return the files by the names of methods."""
        files: dict[str, Path] = {}
        with ExitStack() as opened:
            sinks: dict[str, IO[str]] = {}
            for _, record, listed in self._records():
                method = self._method(record)
                if method not in sinks:
                    files[method] = folder / f"{len(files)}.jsonl"
                    sinks[method] = opened.enter_context(files[method].open("w", encoding="utf-8"))
                sinks[method].write(json.dumps(self._translated(record, listed, passages)) + "\n")
        return files

    def _records(self) -> Iterator[tuple[str, dict[str, Any], Listed]]:
        for file in self._files:
            self._named = re.sub(r"[^A-Za-z0-9._-]", "-", file.stem).strip("-.")[:_NAME] or "file"
            for origin, record in viewer_records(file):
                cleaned = {name: _clean(value) for name, value in record.items()}
                yield origin, cleaned, listed_of(cleaned, origin)

    def _method(self, record: Mapping[str, Any]) -> str:
        said = record.get("method")
        if isinstance(said, str) and said.strip():
            return re.sub(r"[^A-Za-z0-9._-]", "-", said.removeprefix("imported:")).strip("-.")[:_NAME] or self._named
        return self._named

    def _keys(self, record: Mapping[str, Any], side: str) -> list[str]:
        """Return what the hits of a side are called: their ids, with more where one id has several texts."""
        texts = _texts(record, side)
        ids = record.get(f"{side}_ids") or [None] * len(texts)
        keys = []
        seen = Counter[str]()
        for given, text in zip(ids, texts, strict=True):
            hashed = text_hash(text)
            key = "" if given is None else str(given).strip()
            key = key if 0 < len(key) <= _KEY else hashed
            if self._first.setdefault(key, hashed) != hashed:
                key = f"{key}#{hashed[:8]}"
            seen[key] += 1
            keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
        return keys

    def _note_right(self, origin: str, record: Mapping[str, Any], listed: Listed) -> None:
        said = record.get("proponent_correct")
        if said is None:
            return
        keys = self._keys(record, "proponent")
        if not isinstance(said, list) or len(said) != len(keys) or not all(isinstance(one, bool) for one in said):
            raise InputError(f"{origin}: proponent_correct must be a list of true and false, one for each proponent")
        right = self._right.setdefault((listed.prompt or "", listed.target or ""), set())
        right |= {key for key, correct in zip(keys, said, strict=True) if correct}

    def _translated(self, record: Mapping[str, Any], listed: Listed, passages: Mapping[str, str]) -> dict[str, Any]:
        told = {name: value for name, value in (listed.metadata or {}).items() if name != "method"}
        told |= {"inputs_plaintext": listed.prompt, "targets_plaintext": listed.target, "query_set": listed.query_set}
        for side in SIDES:
            told[f"{side}_ids"] = [passages[key] for key in self._keys(record, side)]
            told[f"{side}_scores"] = record.get(f"{side}_scores") or []
        right = self._right.get((listed.prompt or "", listed.target or ""))
        return told if right is None else told | {"passage_ids": sorted(passages[key] for key in right)}


def _texts(record: Mapping[str, Any], side: str) -> list[str]:
    """Return the texts of a side; where the file has none, what says so."""
    n = len(record.get(f"{side}_scores") or [])
    texts = record.get(f"{side}s") or [None] * n
    ids = record.get(f"{side}_ids") or [None] * n
    return [
        text if isinstance(text, str) and text.strip() else f"The file has no text of {given}."
        for text, given in zip(texts, ids, strict=True)
    ]


def _clean(value: Any) -> Any:
    """Return a value without what no text of a lake has: halves of characters, and NUL."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_clean(one) for one in value]
    return {_clean(name): _clean(one) for name, one in value.items()} if isinstance(value, dict) else value

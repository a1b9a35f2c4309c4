"""Which files a corpus is: names, patterns, folders, URLs and stdin become one list, in an order that never changes.

Notable: the order of what was given is kept, and inside a folder or a pattern files are sorted by name, so the list
does not depend on the file system. Object stores are read through fsspec, which is loaded for URLs alone.
"""

import glob
import io
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from proponent.schema.errors import CorpusError

from .streams import peek

STDIN: Final = "-"
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WILD: Final = re.compile(r"[*?[]")
_BUFFER: Final = 1 << 17
_DATASET: Final = ("state.json", "dataset_info.json", "dataset_dict.json")
"""What a Hugging Face dataset on disk has besides its data."""


class FileFacts(NamedTuple):
    """What a file looks like without being read."""

    n_bytes: int
    """Its size; 0 where that is not known."""
    stamp: str | None
    """Something that changes with its content; none where there is no such thing."""


class CorpusFile(NamedTuple):
    """A file of a corpus."""

    name: str
    """What messages and rejects call it."""
    key: str
    """Its name below the folder or pattern that was given."""
    open: Callable[[], AbstractContextManager[BinaryIO]]
    is_remote: bool = False
    location: str | None = None
    """What another process opens it by; none where that may be secret, such as a URL with a signature."""
    facts: Callable[[], FileFacts] = lambda: FileFacts(0, None)
    is_stream: bool = False
    """Whether it can be read only once, as stdin and pipes are."""


class Listing(NamedTuple):
    """The files of a corpus, and the names of those in its folders that are of no known format."""

    files: list[CorpusFile]
    skipped: list[str]


class _Place(Protocol):
    """Where files lie: on this machine, or in an object store."""

    def is_folder(self, path: str) -> bool: ...
    def is_file(self, path: str) -> bool: ...
    def below(self, folder: str) -> list[str]: ...
    def matches(self, pattern: str) -> list[str]: ...
    def told(self, path: str) -> str: ...
    def file(self, path: str, key: str) -> CorpusFile: ...


def list_files(given: Sequence[str | Path], known: Callable[[str], bool]) -> Listing:
    """Return the files that were given by name, pattern, folder, URL or `-`; `known` says which names have a reader.

    Raises CorpusError for what is not there, and for folders and patterns without a file of a known format.
    """
    files: list[CorpusFile] = []
    skipped: list[str] = []
    for one in map(str, given):
        found = _expand(one, known)
        files += found.files
        skipped += found.skipped
    if sum(file.name == STDIN for file in files) > 1:
        raise CorpusError("stdin (-) can be read only once")
    return Listing(files, skipped)


def local_file(path: Path | str, key: str | None = None) -> CorpusFile:
    """Return a file of this machine."""
    name, key = _printable(str(path)), _printable(key or Path(path).name)
    location = os.path.abspath(path)

    def facts() -> FileFacts:
        found = os.stat(location)
        return FileFacts(found.st_size, f"{found.st_size} {found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else None)

    is_stream = os.path.exists(location) and not stat.S_ISREG(os.stat(location).st_mode)
    return CorpusFile(
        name,
        key,
        lambda: cast("Any", Path(path).open("rb", buffering=_BUFFER)),
        location=location,
        facts=facts,
        is_stream=is_stream,
    )


def same_file(location: str, name: str, key: str) -> CorpusFile:
    """Return a file by what another process knows of it. Raises CorpusError when its store cannot be reached."""
    if not _URL.match(location):
        return local_file(location, key)._replace(name=name, key=key)
    if _is_web(location):
        return _web_file(location)
    place, path = _store(location)
    return place.file(path, key)


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")  # names need not be UTF-8


def _expand(given: str, known: Callable[[str], bool]) -> Listing:
    if given == STDIN:
        return Listing([CorpusFile(STDIN, "stdin", lambda: nullcontext(sys.stdin.buffer), is_stream=True)], [])
    if not _URL.match(given):
        return _expand_in(_Local(), given, known)
    if _is_web(given):
        return Listing([_web_file(given)], [])
    try:
        place, path = _store(given)
        found = _expand_in(place, path, known)
        if "@" not in urlsplit(given).netloc:
            return found
        return Listing([_only_here(file) for file in found.files], found.skipped)
    except CorpusError:
        raise
    except Exception as error:  # every store has errors of its own
        reason = without_secrets(f"{type(error).__name__}: {error}")
        raise CorpusError(f"{_told(given)} cannot be read: {reason}") from error


def _only_here(file: CorpusFile) -> CorpusFile:
    return file._replace(location=None)


def _expand_in(place: _Place, path: str, known: Callable[[str], bool]) -> Listing:
    if place.is_folder(path):
        return _select(place, path, place.below(path), known)
    if place.is_file(path):
        return Listing([place.file(path, PurePosixPath(path).name)], [])
    if not _WILD.search(path):
        raise CorpusError(f"{place.told(path)} does not exist; give the corpus's files")
    fixed = _WILD.split(path, maxsplit=1)[0]
    base = fixed[: fixed.rfind("/") + 1]
    return _select(place, base, [match[len(base) :] for match in place.matches(path)], known, pattern=path)


def _select(
    place: _Place, base: str, names: list[str], known: Callable[[str], bool], *, pattern: str | None = None
) -> Listing:
    """Choose the corpus's files among names below a folder, sorted."""
    names = sorted((name for name in names if not _is_hidden(name)), key=lambda name: name.split("/"))
    datasets = _datasets(place, base, names)
    chosen = [name for files in datasets.values() for name in files]
    skipped: list[str] = []
    for name in names:
        path = PurePosixPath(name)
        if any(folder in path.parents for folder in datasets) or path.name in _DATASET:
            continue
        if known(name):
            chosen.append(name)
        else:
            skipped.append(place.told(_joined(base, name)))
    if not chosen:
        raise CorpusError(_nothing(place.told(pattern or base), skipped, is_pattern=pattern is not None))
    chosen.sort(key=lambda name: name.split("/"))
    return Listing(
        [place.file(_joined(base, name), name) for name in chosen],
        skipped,
    )


def _nothing(told: str, skipped: list[str], *, is_pattern: bool) -> str:
    where = f"that matches {told}" if is_pattern else f"in {told}"
    if not skipped:
        return f"there is no file {where}"
    return f"no file {where} has a known suffix; there are {', '.join(skipped[:3])}"


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _joined(folder: str, name: str) -> str:
    return folder + name if not folder or folder.endswith("/") else f"{folder}/{name}"


def _datasets(place: _Place, base: str, names: list[str]) -> dict[PurePosixPath, list[str]]:
    """Return the folders that are Hugging Face datasets, with the data files that their state names."""
    found = {}
    for name in names:
        folder = PurePosixPath(name).parent
        if PurePosixPath(name).name == "state.json" and str(folder / "dataset_info.json") in names:
            found[folder] = [
                str(folder / file)
                for file in _names_in(place.file(_joined(base, name), name), "_data_files", "filename")
            ]
            missing = [file for file in found[folder] if file not in names]
            if missing:
                raise CorpusError(f"{_joined(base, name)} names {missing[0]}, which is not there")
        if PurePosixPath(name).name == "dataset_dict.json":
            for split in _names_in(place.file(_joined(base, name), name), "splits"):
                if str(folder / split / "state.json") not in names:
                    raise CorpusError(f"{_joined(base, name)} names the split {split!r}, which is not there")
    return found


def _names_in(file: CorpusFile, member: str, *inner: str) -> list[str]:
    """Return the names in a list of a JSON file, or those in one member of each of its objects."""
    try:
        with file.open() as opened:
            found = json.load(opened)[member]
        return [str(one[inner[0]] if inner else one) for one in found]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CorpusError(f"{file.name} cannot be read: {type(error).__name__}: {error}") from error


class _Local:
    """The files of this machine."""

    def is_folder(self, path: str) -> bool:
        return Path(path).is_dir()

    def is_file(self, path: str) -> bool:
        return Path(path).exists()

    def below(self, folder: str) -> list[str]:
        return [Path(path).relative_to(folder).as_posix() for path in _walk(folder)]

    def matches(self, pattern: str) -> list[str]:
        return [path for path in glob.glob(pattern, recursive=True) if not Path(path).is_dir()]

    def told(self, path: str) -> str:
        return _printable(path)

    def file(self, path: str, key: str) -> CorpusFile:
        return local_file(path, key)


def _walk(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}") from error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (os.path.join(parent, name) for name in names)


class _Store:
    """An object store, or any other file system that fsspec knows."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def is_folder(self, path: str) -> bool:
        return bool(self._system.isdir(path))

    def is_file(self, path: str) -> bool:
        return bool(self._system.isfile(path))

    def below(self, folder: str) -> list[str]:
        start = len(folder.rstrip("/")) + 1
        return [path[start:] for path in self._system.find(folder)]

    def matches(self, pattern: str) -> list[str]:
        found = self._system.glob(pattern, detail=True)
        return [path for path, facts in found.items() if facts["type"] == "file"]

    def told(self, path: str) -> str:
        return str(self._system.unstrip_protocol(path))

    def file(self, path: str, key: str) -> CorpusFile:
        url = self.told(path)

        def facts() -> FileFacts:
            return FileFacts(self._system.size(path) or 0, str(self._system.ukey(path)))

        def opened() -> BinaryIO:
            # Not every file system's files can read one line of at most so many bytes.
            return cast("BinaryIO", io.BufferedReader(self._system.open(path, "rb"), _BUFFER))

        return CorpusFile(url, key, opened, True, location=url, facts=facts)


def _store(url: str) -> tuple[_Place, str]:
    """Return an object store and the path in it."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # ValueError for a protocol that nobody has heard of
        raise CorpusError(f"{_told(url)} cannot be read: {error}; S3 needs pip install 'proponent[s3]'") from error
    system.invalidate_cache()  # what was listed in an earlier run of this process may have changed
    return _Store(system), str(path)


def _web_file(url: str) -> CorpusFile:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        import fsspec

        with fsspec.open(url, "rb", block_size=0) as file:  # as a stream: not every server hands out parts of files
            yield peek(file, 0)[1]

    key = PurePosixPath(urlsplit(url).path).name or "index"
    return CorpusFile(_told(url), key, opened, is_remote=True, location=url if _told(url) == url else None)


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def told(given: str | Path) -> str:
    """Return what was given as messages and records say it."""
    return _told(str(given)) if _URL.match(str(given)) else _printable(str(given))


def without_secrets(text: str) -> str:
    """Return a text with its URLs as messages say them."""
    return re.sub(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", lambda found: _told(found[0]), text, flags=re.IGNORECASE)


def _told(url: str) -> str:
    """Return a URL without what may be secret in it: a password, a signature."""
    scheme, host, path, *_ = urlsplit(url)
    return f"{scheme}://{host.rpartition('@')[2]}{path}"

"""Entities found by a spaCy pipeline: an installed package, or the folder of a saved pipeline.

Notable: a folder brings data and no code, but its `config.cfg` says which functions of installed packages are called
to load it, and with what; a package is code. spaCy's own components unpickle nothing and ask no network.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proponent.schema.errors import ModelError
from proponent.schema.ids import content_id, stream_id

from .extractor import Entity, Extractor, Mention

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Span

_RULE: Final = 1
"""Counts up when the same spans become other mentions than before."""
_CHUNK_BYTES: Final = 1 << 20
_MANY_CHARACTERS: Final = 300


class SpacyPipeline(Extractor):
    """Finds what a pipeline puts into `doc.ents`."""

    kind = "spacy"

    def __init__(self, nlp: "Language", *, root: Path) -> None:
        """Take a loaded pipeline, and the folder with everything that it was loaded from."""
        self._nlp = nlp
        self._called = f"{nlp.meta['lang']}_{nlp.meta['name']}"
        self.version = content_id("spacy", _RULE, *_code_versions(nlp), *_contents(root))
        pipeline = f"{self._called} {nlp.meta['version']}"
        self.about = {"pipeline": pipeline, "path": str(root), "spacy": version("spacy")}

    def find_all(self, texts: Sequence[str]) -> list[list[Mention]]:
        """Return the entities of every text. Raises ModelError when a component fails."""
        try:
            # Without a zone the vocabulary would keep every word that it ever met, and memory grow with the corpus.
            with self._nlp.memory_zone():
                return [[_mention(span) for span in doc.ents if span.text.strip()] for doc in self._nlp.pipe(texts)]
        except Exception as error:  # components are other people's code
            raise ModelError(f"spaCy pipeline {self._called} failed: {_told(error)}") from error


def _mention(span: "Span") -> Mention:
    name = " ".join(span.text.split())
    return Mention(Entity(name, span.label_ or None), span.start_char, span.end_char)


def load_spacy(model: str | Path) -> SpacyPipeline:
    """Load a pipeline from its folder, or from the installed package of that name.

    Raises ModelError when spaCy is not installed, for what is no pipeline, and for one that finds no entities.
    """
    try:
        import spacy
    except ImportError as error:
        raise ModelError("finding entities with spaCy needs it: pip install 'proponent[spacy]'") from error
    folder = Path(model)
    root = folder if folder.is_dir() else _package_folder(str(model))
    if not ((root / "config.cfg").is_file() if root == folder else (root / "meta.json").is_file()):
        raise ModelError(f"{model} is no spaCy pipeline; save one with nlp.to_disk, or name a pipeline's package")
    try:
        nlp: Language = spacy.load(folder) if root == folder else import_module(str(model)).load()
    except Exception as error:  # whatever a config names may raise whatever it likes
        raise ModelError(f"spaCy cannot load {model}: {_told(error)}") from error
    _require_entities(nlp, str(model))
    return SpacyPipeline(nlp, root=root)


def _package_folder(name: str) -> Path:
    """Return the folder of an installed package, which is not imported for that."""
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"there is no folder {name} and no installed package of that name; install or save a pipeline")
    return Path(next(iter(spec.submodule_search_locations)))


def _require_entities(nlp: "Language", model: str) -> None:
    """Raise ModelError for a pipeline that leaves `doc.ents` empty, as one that fills `doc.spans` alone does."""
    for name, component in nlp.pipeline:
        # What a SpanRuler assigns is up to its settings.
        if "doc.ents" in nlp.get_pipe_meta(name).assigns or getattr(component, "annotate_ents", False):
            return
    names = ", ".join(nlp.pipe_names) or "nothing"
    raise ModelError(f"no component of spaCy pipeline {model} says that it assigns doc.ents; it has {names}")


def _code_versions(nlp: "Language") -> Iterator[str]:
    """Yield spaCy and the packages of the components that are not its own, with their versions."""
    modules = {getattr(component, "__module__", "").partition(".")[0] for _, component in nlp.pipeline}
    for name in sorted(modules | {"spacy"}):
        try:
            yield f"{name} {version(name)}"
        except (PackageNotFoundError, ValueError):  # code of nobody's distribution
            yield name


def _contents(root: Path) -> Iterator[str]:
    """Yield the name and the hash of every file below a folder."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(root).as_posix()
            with path.open("rb") as file:
                yield stream_id("file", iter(partial(file.read, _CHUNK_BYTES), b""))


def _told(error: Exception) -> str:
    """Return an error on one line; spaCy says what is wrong after the first of several."""
    told = " ".join(str(error).split())
    return told if len(told) <= _MANY_CHARACTERS else f"{told[:_MANY_CHARACTERS]}..."

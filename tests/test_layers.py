"""The layer rule of CONTRIBUTING.md: what each folder of the repository may import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FACE = "proponent"
MAY_IMPORT = {
    "schema": set(),
    "observe": {"schema"},
    "store": {"schema", "observe"},
    "encode": {"schema", "observe"},
    "ingest": {"schema", "observe", "store", "encode"},
    "query": {"schema", "observe", "store", "encode"},
    "migrations": {"schema", "store"},
    FACE: {"schema", "observe", "store", "encode", "ingest", "query", "migrations"},
}
STORAGE = {"alembic", "duckdb", "lance", "lancedb", "sqlalchemy"}
MODELS = {"transformers", "tokenizers"}
FACE_TOOLS = {"click", "rich"}
MAY_NOT_KNOW = {
    "schema": {"alembic", "duckdb", "lance", "lancedb", "torch"} | MODELS | FACE_TOOLS,
    "observe": STORAGE | MODELS | FACE_TOOLS | {"torch"},
    "store": MODELS | FACE_TOOLS,
    "encode": STORAGE | FACE_TOOLS,
    "ingest": FACE_TOOLS,
    "query": FACE_TOOLS,
    "migrations": {"torch"} | MODELS | FACE_TOOLS,
}
HEAVY = ("torch", "transformers", "lance", "lancedb", "duckdb", "pandas", "polars", "spacy")


class Import(NamedTuple):
    line: int
    module: str
    """Absolute name; for `from a import b` where b may be a module, `a.b`."""
    relative: bool


def modules(folder: str) -> list[Path]:
    """Every Python file of a layer; links to the other layers are not followed."""
    top = ROOT / folder
    links = tuple(path for path in top.iterdir() if path.is_symlink())
    return sorted(path for path in top.rglob("*.py") if not any(link in path.parents for link in links))


def package_of(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).parent.parts)
    return parts if parts[0] == FACE else [FACE, *parts]


def imports(source: str, package: list[str]) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, relative=False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield Import(node.lineno, ".".join([*base, alias.name]), relative=node.level > 0)


def layer_of(module: str) -> str | None:
    """The folder that a module of the package is in; None for other people's modules."""
    name, _, rest = module.partition(".")
    if name != FACE:
        return None
    folder = rest.partition(".")[0]
    return folder if folder in MAY_IMPORT else FACE


def violations(folder: str, source: str, package: list[str]) -> Iterator[str]:
    for line, module, relative in imports(source, package):
        layer = layer_of(module)
        if relative and layer != folder:
            yield f"line {line}: leaves {folder}/ by a relative import of {module}"
        elif layer is None:
            if module.partition(".")[0] in MAY_NOT_KNOW.get(folder, ()):
                yield f"line {line}: {folder}/ should not know {module}"
        elif layer not in MAY_IMPORT[folder] | {folder}:
            yield f"line {line}: {folder}/ may not import {module}"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_every_import_respects_the_layers(folder: str) -> None:
    found = modules(folder)
    assert found
    wrong = [
        f"{path.relative_to(ROOT)}, {fault}"
        for path in found
        for fault in violations(folder, path.read_text("utf-8"), package_of(path))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("schema", "import proponent.store.lake"),
        ("store", "from proponent import query"),
        ("store", "def late():\n    from proponent.encode.encoder import Encoder"),
        ("store", "if TYPE_CHECKING:\n    import proponent.ingest"),
        ("store", "from ..encode import encoder"),
        ("store", "from .. import migrations"),
        ("store", "from proponent.lake import Lake"),
        ("encode", "import proponent.store"),
        ("encode", "from sqlalchemy.orm import Session"),
        ("ingest", "import proponent.query"),
        ("query", "import proponent.ingest"),
        ("query", "from proponent import migrations"),
        ("query", "import proponent"),
        (FACE, "from .store import lake"),
    ],
)
def test_the_rule_finds_violations(folder: str, source: str) -> None:
    assert list(violations(folder, source, [FACE] if folder == FACE else [FACE, folder]))


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("store", "from .lake import LakeStore\nfrom proponent.schema import ids\nimport lance"),
        ("query", "from proponent.store.lake import LakeStore\nfrom . import filter"),
        (FACE, "from .version import __version__\nfrom proponent import migrations"),
    ],
)
def test_the_rule_lets_the_rest_through(folder: str, source: str) -> None:
    assert not list(violations(folder, source, [FACE] if folder == FACE else [FACE, folder]))


def test_every_folder_with_modules_is_a_layer() -> None:
    elsewhere = {"tests", "benchmarks", "docs"}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - elsewhere == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "module", ["proponent", "proponent.cli", "proponent.schema.errors", "proponent.schema.settings"]
)
def test_import_stays_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_help_stays_light() -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('heavy:', *sorted(set({HEAVY}) & set(sys.modules))))\n"
        "sys.argv = ['proponent', '--help']\n"
        "from proponent.cli import main\nmain()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "heavy:"

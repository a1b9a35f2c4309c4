"""What is built and installed: the layers' packages, their data files, and nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("schema", "observe", "store", "encode", "ingest", "query", "migrations")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DERIVED = ("*.egg-info", "__pycache__", ".*", "build", "dist", "proponent-demo")
STYLES = {".css", ".html", ".j2", ".js", ".svg"}
DATA_SUFFIXES = STYLES | {".json", ".jsonl", ".mako", ".md", ".safetensors", ".sql", ".toml", ".typed"}


def installed_path(path: Path) -> str:
    """Where a file of the repository lies in site-packages."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts if parts[0] == "proponent" else ("proponent", *parts))


def shipped_files() -> list[Path]:
    """The files of the layers and of the face, links not followed."""
    top = ROOT / "proponent"
    places = [ROOT / layer for layer in LAYERS] + [path for path in top.iterdir() if not path.is_symlink()]
    found = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    return [file for file in found if file.suffix == ".py" or file.suffix in DATA_SUFFIXES]


def test_packages_are_the_folders_with_modules() -> None:
    on_disk = {
        str(PurePosixPath(installed_path(file)).parent).replace("/", ".")
        for file in shipped_files()
        if file.name == "__init__.py"
    }
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == on_disk
    assert SETTINGS["tool"]["setuptools"]["package-dir"] == {f"proponent.{layer}": layer for layer in LAYERS}


def test_every_module_lies_in_a_package() -> None:
    folders = {file.parent for file in shipped_files() if file.suffix == ".py"}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_each_layer_has_one_relative_link() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "proponent").iterdir() if path.is_symlink()}
    assert links == {layer: f"../{layer}" for layer in LAYERS}


def test_constraints_fit_the_ranges() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    project = SETTINGS["project"]
    extras = project["optional-dependencies"]
    for requirement in map(Requirement, project["dependencies"] + extras["demo"] + extras["dev"]):
        pin = pins.get(canonicalize_name(requirement.name))
        assert requirement.specifier.contains(pin or "0"), f"constraints.txt has {pin} for {requirement}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it, made from a copy of the repository."""
    copy = tmp_path_factory.mktemp("source") / "proponent"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*DERIVED))
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return out


def test_wheel_has_everything_once_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if ".dist-info/" not in name)
    assert names == sorted(map(installed_path, shipped_files()))


@pytest.mark.parametrize(
    "name",
    [
        "proponent/py.typed",
        "proponent/migrations/script.py.mako",
        "proponent/query/sql/views.sql",
        "proponent/query/evaluate/sets/choice.jsonl",
        "proponent/query/report/templates/report.html.j2",
        "proponent/query/web/templates/base.html.j2",
        "proponent/query/web/static/explorer.css",
        "proponent/demo/checkpoint/model.safetensors",
        "proponent/demo/checkpoint/second_moments.safetensors",
        "proponent/demo/checkpoint/tokenizer.json",
    ],
)
def test_data_files_are_expected_where_they_are_read(name: str) -> None:
    assert name in map(installed_path, shipped_files())


def test_wheel_tells_what_it_is(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        texts = {PurePosixPath(name).name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    metadata = texts["METADATA"].decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert "proponent = proponent.cli:main" in texts["entry_points.txt"].decode()


def test_sdist_has_what_a_developer_needs(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert len(names) == len(set(names))
    wanted = {str(file.relative_to(ROOT)) for file in shipped_files()}
    wanted |= {str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("*.py")}
    wanted |= {"Makefile", "constraints.txt", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "README.md"}
    assert wanted <= set(names)
    assert not [name for name in names if name.startswith(tuple(f"proponent/{layer}/" for layer in LAYERS))]


def test_installed_wheel_runs_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python, proponent = (str(place / "bin" / name) for name in ("python", "proponent"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}

    def call(*command: str) -> str:
        run = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}{run.stderr[-3000:]}"
        return run.stdout

    call(python, "-m", "pip", "install", "-qq", "--no-compile", "-c", str(ROOT / "constraints.txt"), str(wheel))
    assert call(proponent, "--version").startswith("proponent, version ")
    assert "trace" in call(proponent, "--help")
    call(proponent, "init", "lake")
    assert "documents" in call(proponent, "status", "lake")

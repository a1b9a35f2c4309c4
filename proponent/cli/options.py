"""Options that several commands share, each defined once."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from proponent.schema.settings import DEVICE_MAPS, ENGINES

from .output import remark

if TYPE_CHECKING:
    from proponent.schema.settings import MetricsSettings
    from proponent.store.lake import LakeStore

F = TypeVar("F", bound=Callable[..., Any])

FORMS = ("json", "jsonl", "csv", "md", "parquet", "arrow", "xlsx")
"""Forms of rows; those of `query.export.forms`, which takes its time to import."""


class LakeName(click.ParamType[Any]):
    """Where a lake lies: a folder, or a URL of an object store, with the options that stand before the command."""

    name = "path"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return a Path for a folder, else what the store calls it."""
        if "://" not in str(value):
            return Path(value)
        from proponent.store.place import lake_path

        given = context.find_root().params.get("storage", ()) if context else ()
        return lake_path(value, dict(given))


lake_argument = click.argument("lake", type=LakeName())
"""The lake, always the first argument."""


def quiet_option(command: F) -> F:
    """Add `-q`."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no remarks on stderr.")(command)


def writable(path: Path) -> Path:
    """Return a file's name. Raises InputError where it could not be written, before minutes of work end in that."""
    from proponent.schema.errors import InputError

    if re.match(r"[a-z0-9]+:/", str(path)):
        raise InputError(f"{path} is no file of this machine; write to one, and copy it to the object store")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; make the folder first")
    return path


def to_write(_context: click.Context, _parameter: click.Parameter, output: Path | None) -> Path | None:
    """Refuse what `writable` refuses."""
    return output and writable(output)


class _Address(click.ParamType[Any]):
    """Where metrics are served."""

    name = "host:port"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the settings."""
        from proponent.schema.errors import SettingsError
        from proponent.schema.settings import MetricsSettings

        try:
            return MetricsSettings.of_address(str(value))
        except SettingsError as error:
            self.fail(str(error), parameter, context)


def metrics_option(command: F) -> F:
    """Add `--metrics`."""
    return click.option(
        "--metrics",
        type=_Address(),
        metavar="[HOST:]PORT",
        help="Serve metrics for Prometheus meanwhile, to this machine alone unless HOST is another address of it.",
    )(command)


@contextmanager
def serving_metrics(store: "LakeStore", settings: "MetricsSettings | None", *, quiet: bool) -> Iterator[None]:
    """Serve the metrics of this process, its workers and its lake in a with block, if settings say where."""
    if settings is None:
        yield
        return
    from proponent.observe.metrics import serving
    from proponent.store.readings import readings

    with serving(settings, lambda: readings(store.catalog)) as port:
        remark(f"metrics are at http://{settings.host}:{port}/metrics", quiet=quiet)
        yield


def engine_options(command: F) -> F:
    """Add `--engine` and `--ray-address`."""
    command = click.option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Ray cluster to join; by default that of RAY_ADDRESS, else one that is made on this machine meanwhile.",
    )(command)
    return click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=ENGINES[0],
        show_default=True,
        help="What does the work: processes of this machine, or a Ray cluster.",
    )(command)


class _DeviceMap(click.ParamType[Any]):
    """A map that accelerate makes, or a file with one."""

    name = "map"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the name of a map, or what the file says."""
        if isinstance(value, dict) or value in DEVICE_MAPS:
            return value
        try:
            found = json.loads(Path(value).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.fail(f"{value!r} is none of {', '.join(DEVICE_MAPS)}, and no JSON file: {error}", parameter, context)
        if not isinstance(found, dict) or not all(isinstance(where, int | str) for where in found.values()):
            self.fail(f'{value} is no JSON object such as {{"model": 0, "lm_head": "cpu"}}', parameter, context)
        return found


def device_map_option(command: F) -> F:
    """Add `--device-map`."""
    return click.option(
        "--device-map",
        type=_DeviceMap(),
        metavar="MAP",
        help="Spread a model that is larger than one device over GPUs, main memory and disk: auto, balanced, "
        "sequential, or a JSON file of modules and places. Needs the extra spread.",
    )(command)


class Size(click.ParamType[int]):
    """A number of bytes, as 500MB or 8GiB."""

    name = "size"
    _UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30}

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Return the bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", str(value).strip().lower())
        if match is None or match[2] not in self._UNITS:
            self.fail(f"{value!r} is no size; write 500MB or 8GB", parameter, context)
        return int(float(match[1]) * self._UNITS[match[2]])


def output_options(command: F) -> F:
    """Add the options of every command that prints data: `--format`, `-o` and `-q`."""
    command = click.option(
        "--format",
        "form",
        type=click.Choice(["table", *FORMS]),
        help="Form of the output; by default a table, or what the suffix of -o says.",
    )(command)
    command = click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=to_write,
        help="Write to a file instead of stdout.",
    )(command)
    return quiet_option(command)

"""A package that is installed can add a reader: the one that CONTRIBUTING.md shows."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proponent.ingest.readers import all_readers, find_reader, is_known, read_file
from proponent.schema.errors import SettingsError
from proponent.schema.settings import ReadSettings

GUIDE = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text("utf-8")
[READER] = re.findall(r"^```python\n(.*?class Records\(Reader\):.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with a reader, as pip leaves it in site-packages."""

    def installed(*, name: str = "records", target: str = "Records", module: str = "record_reader") -> None:
        facts = tmp_path / "site" / "record_reader-1.0.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: record-reader\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[proponent.readers]\nrecords = {module}:{target}\n")
        (tmp_path / "site" / "record_reader.py").write_text(READER.replace('name = "records"', f'name = "{name}"'))
        monkeypatch.syspath_prepend(tmp_path / "site")
        importlib.invalidate_caches()
        all_readers.cache_clear()

    yield installed
    sys.modules.pop("record_reader", None)
    monkeypatch.undo()
    importlib.invalidate_caches()
    all_readers.cache_clear()


def test_an_installed_reader_reads_its_files(tmp_path: Path, install: Install) -> None:
    assert not is_known("a.rec")
    install()
    (tmp_path / "a.rec").write_text("id: 1\ntext: One.\n\nnonsense\n\nid: 2\ntext: Two.\n")
    assert is_known("a.REC.gz")
    one, bad, two = read_file(tmp_path / "a.rec")
    assert [one.fields, two.fields] == [{"id": "1", "text": "One."}, {"id": "2", "text": "Two."}]
    assert bad.error
    (tmp_path / "b").write_bytes((tmp_path / "a.rec").read_bytes())
    assert len(list(read_file(tmp_path / "b", ReadSettings(reader="records")))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "jsonl"}, "two readers are called 'jsonl'"),
        ({"target": "RawRow"}, "cannot be loaded: TypeError"),
        ({"target": "Missing"}, "cannot be loaded: AttributeError"),
        ({"module": "no_such_module"}, "cannot be loaded: ModuleNotFoundError"),
        ({"module": "builtins", "target": "list"}, "is no subclass of"),
    ],
)
def test_a_reader_that_cannot_be_used_is_told(install: Install, options: dict[str, str], message: str) -> None:
    install(**options)
    with pytest.raises(SettingsError, match=message):
        find_reader("jsonl")


def test_an_unknown_reader_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="no reader 'xml'; the readers are jsonl, json, csv, tsv, parquet"):
        find_reader("xml")

"""Where a run's lists lie on a machine that others use, too."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proponent.ingest.worklist import run_folder
from proponent.schema.errors import SettingsError
from proponent.store.place import lake_path


def test_a_folder_that_somebody_else_made_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lake: Any = SimpleNamespace(root=lake_path("s3://bucket/lake"), config=SimpleNamespace(made_by="run"))
    own = run_folder(lake, "run").parents[1]
    assert own.parent == tmp_path
    assert own.stat().st_mode & 0o777 == 0o700
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="is not a folder of yours"):
        run_folder(lake, "run")

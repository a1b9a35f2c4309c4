"""A mapping in a TOML file says what options say."""

from pathlib import Path

import pytest

from proponent.ingest.fields import read_fields
from proponent.schema.errors import SettingsError


def test_a_file_names_fields_as_options_do(tmp_path: Path) -> None:
    path = tmp_path / "fields.toml"
    path.write_text('id = "key"  # ours\ntext = "{headline}\\n\\n{body}"\nsource = "=wire"\n', "utf-8")
    assert read_fields(path) == {"id": "key", "text": "{headline}\n\n{body}", "source": "=wire"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"headline = 'title'", "'headline' is no column; the columns are id, text, source"),
        (b"id = 5", "id must be a text in quotes"),
        (b"id = key", "cannot be read"),
        (b"id = '\xe9'", "cannot be read"),
        (None, "fields.toml cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_mapping_is_told(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "fields.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SettingsError, match=message):
        read_fields(path)

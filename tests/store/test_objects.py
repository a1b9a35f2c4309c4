"""Addresses of object stores, what is told of them, and files that appear whole. No store is asked."""

from pathlib import Path

import pytest

from proponent.schema.errors import SettingsError
from proponent.store.objects import object_path, storage_error
from proponent.store.place import lake_path, writing

TOLD = "Generic S3 error: Error performing HEAD {} in 101.9ms, after 1 retries, max_retries: 1  - HTTP error: refused"


@pytest.mark.parametrize("name", ["", "somebody:a secret@", "somebody@", "a:b@c:d@"])
def test_a_password_in_an_address_is_not_told(name: str) -> None:
    told = storage_error(OSError(TOLD.format(f"http://{name.replace(' ', '%20')}127.0.0.1:9/b/lake@x?y@z")))
    assert "object store at http://127.0.0.1:9 cannot be used" in str(told)


def test_a_scheme_in_capitals_is_no_folder() -> None:
    assert str(lake_path("S3://bucket/lake")) == "s3://bucket/lake"
    with pytest.raises(SettingsError, match="not at file://"):
        lake_path("FILE:///lake")


@pytest.mark.parametrize("option", ["client_max_retries", "client_retry_timeout"])
def test_an_option_that_is_no_number_is_named(option: str) -> None:
    place = object_path("s3://bucket/lake", {option: "some"})
    assert place is not None
    with pytest.raises(SettingsError, match=option):
        place.stat()


def test_two_who_write_one_file_do_not_write_into_each_others(tmp_path: Path) -> None:
    with writing(tmp_path / "file") as one, writing(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("the other")
        assert one.read_text() == "one"
    assert (tmp_path / "file").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""Several workers on a machine of several GPUs have one each."""

from pathlib import Path

import pytest

from proponent.ingest.engine import gpu_of


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ("3,5", ["3", "5", "3"]),
        (" 3 , GPU-8932f937 ,", ["3", "GPU-8932f937", "3"]),
        ("3", [None, None, None]),
        ("", [None, None, None]),
        (None, ["0", "1", "0"]),
    ],
)
def test_workers_take_the_gpus_in_turn(tmp_path: Path, named: str | None, wanted: list[str | None]) -> None:
    for name in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / name).mkdir()
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    found = [gpu_of(place, environment, tmp_path).get("CUDA_VISIBLE_DEVICES") for place in range(3)]
    assert found == wanted


def test_without_gpus_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert gpu_of(1, {}, tmp_path) == gpu_of(1, {}, tmp_path / "none") == {}

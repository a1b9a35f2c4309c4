"""An artifact's name is its content."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.errors import DamagedLakeError
from proponent.store.artifacts import load_artifact, save_artifact

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int64]


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=10).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)),
        max_size=4,
    )
)
def test_what_is_saved_is_loaded_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("artifacts")
    tensors = {name: (torch.randn(shape) * 10).to(dtype) for name, (dtype, shape) in shapes.items()}
    loaded = load_artifact(folder, save_artifact(folder, tensors))
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


def test_equal_content_has_one_file_and_other_content_another(tmp_path: Path) -> None:
    name = save_artifact(tmp_path, {"a": torch.ones(2, 3), "b": torch.zeros(1)})
    assert save_artifact(tmp_path, {"b": torch.zeros(1), "a": torch.ones(3, 2).T}) == name
    assert save_artifact(tmp_path, {"a": torch.ones(2, 3), "b": torch.ones(1)}) != name
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_changed_byte_anywhere_is_found(tmp_path: Path, place: int) -> None:
    name = save_artifact(tmp_path, {"a": torch.randn(50)})
    data = bytearray((tmp_path / name).read_bytes())
    data[place] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DamagedLakeError, match="was changed"):
        load_artifact(tmp_path, name)


def test_a_truncated_or_exchanged_file_is_found(tmp_path: Path) -> None:
    name, other = (save_artifact(tmp_path, {"a": torch.full((50,), value)}) for value in (1.0, 2.0))
    whole = (tmp_path / name).read_bytes()
    for data in (b"", whole[:-1], whole + b"\0", (tmp_path / other).read_bytes()):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DamagedLakeError, match="was changed"):
            load_artifact(tmp_path, name)


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedLakeError, match="is missing; restore it from a backup, or fit anew under another name"):
        load_artifact(tmp_path, "none.safetensors")


def test_what_an_interrupted_save_left_is_neither_loaded_nor_in_the_way(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(5)}
    name = save_artifact(tmp_path, tensors)
    (tmp_path / name).rename(tmp_path / f"{name}.1.partial")
    with pytest.raises(DamagedLakeError, match="is missing"):
        load_artifact(tmp_path, name)
    assert save_artifact(tmp_path, tensors) == name
    assert torch.equal(load_artifact(tmp_path, name)["a"], tensors["a"])

"""A model is registered once, by what its files hold, under a name that nothing else has."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import select

import proponent
from proponent.ingest.models import facts_of, get_model
from proponent.schema import catalog as models
from proponent.schema.errors import ModelError, NotFoundError, SettingsError


def registered(lake: proponent.Lake) -> list[models.Model]:
    with lake.store.catalog.read() as session:
        return list(session.scalars(select(models.Model)))


def test_a_registered_model_is_described(lake: proponent.Lake, checkpoint_dir: Path) -> None:
    row = lake.add_model(checkpoint_dir, name="tiny")
    tensors = load_file(checkpoint_dir / "model.safetensors")
    assert row["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert (row["name"], row["architecture"], row["layers"], row["context"]) == ("tiny", "LlamaForCausalLM", 3, 64)
    assert (row["moments"], row["path"]) == (None, str(checkpoint_dir.resolve()))


def test_registering_twice_changes_nothing(lake: proponent.Lake, checkpoint_dir: Path) -> None:
    first = lake.add_model(checkpoint_dir, name="tiny")
    assert lake.add_model(checkpoint_dir, name="tiny") == first
    assert len(registered(lake)) == 1


def test_files_that_moved_are_found_at_their_new_place(
    lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path
) -> None:
    lake.add_model(checkpoint_dir, name="tiny")
    moved = shutil.copytree(checkpoint_dir, tmp_path / "elsewhere")
    lake.add_model(moved, name="tiny")
    assert [row.path for row in registered(lake)] == [str(moved)]


def test_a_name_belongs_to_one_checkpoint(
    lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path, make_checkpoint: Callable[..., Path]
) -> None:
    lake.add_model(checkpoint_dir, name="tiny")
    with pytest.raises(SettingsError, match="'tiny' belongs to another checkpoint"):
        lake.add_model(make_checkpoint(tmp_path / "other", seed=1), name="tiny")


def test_a_checkpoint_has_one_name(lake: proponent.Lake, checkpoint_dir: Path) -> None:
    lake.add_model(checkpoint_dir, name="tiny")
    with pytest.raises(SettingsError, match="registered already, as 'tiny'"):
        lake.add_model(checkpoint_dir, name="small")


@pytest.mark.parametrize("name", ["", "Tiny", "1b", "_x", "a-b", "a b", "a'b", "é", "a/b", "x" * 49, "tiny\n"])
def test_a_name_that_could_not_name_a_table_is_refused(lake: proponent.Lake, checkpoint_dir: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="model's name"):
        lake.add_model(checkpoint_dir, name=name)


@pytest.mark.parametrize("name", ["a", "pythia_1b", "x" * 48])
def test_a_name_that_can_name_a_table_is_taken(lake: proponent.Lake, checkpoint_dir: Path, name: str) -> None:
    assert lake.add_model(checkpoint_dir, name=name)["name"] == name


def test_second_moments_beside_the_weights_are_found(
    lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path
) -> None:
    path = shutil.copytree(checkpoint_dir, tmp_path / "model")
    save_file({"x": torch.ones(1)}, path / "second_moments.safetensors")
    assert lake.add_model(path, name="tiny")["moments"] == str(path / "second_moments.safetensors")


def test_second_moments_are_part_of_what_a_model_is(lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "moments.safetensors")
    lake.add_model(checkpoint_dir, name="tiny", moments=tmp_path / "moments.safetensors")
    with pytest.raises(SettingsError, match="another checkpoint"):
        lake.add_model(checkpoint_dir, name="tiny")
    with pytest.raises(ModelError, match="does not exist"):
        lake.add_model(checkpoint_dir, name="small", moments=tmp_path / "nothing.pt")


@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_damaged_weights_are_refused(lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path, data: bytes) -> None:
    path = shutil.copytree(checkpoint_dir, tmp_path / "model")
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="not a safetensors file"):
        lake.add_model(path, name="tiny")
    assert registered(lake) == []


def test_a_tokenizer_that_cannot_be_loaded_is_refused(
    lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path
) -> None:
    path = shutil.copytree(checkpoint_dir, tmp_path / "model")
    (path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer in .* cannot be loaded"):
        lake.add_model(path, name="tiny")
    assert registered(lake) == []


@pytest.mark.parametrize("kind", [{"peft_type": "IA3"}, {"peft_type": "LORA", "use_dora": True}, {}])
def test_adapters_that_an_encoder_would_pass_by_are_refused(
    lake: proponent.Lake, tmp_path: Path, checkpoint_dir: Path, kind: dict[str, Any]
) -> None:
    (tmp_path / "adapters").mkdir()
    config = {"base_model_name_or_path": str(checkpoint_dir)} | kind
    (tmp_path / "adapters" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    shutil.copy(checkpoint_dir / "model.safetensors", tmp_path / "adapters" / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"only LoRA's can be encoded; merge them into their model"):
        lake.add_model(tmp_path / "adapters", name="tiny")
    assert registered(lake) == []


def test_another_context_for_a_registered_model_is_not_passed_over(lake: proponent.Lake, checkpoint_dir: Path) -> None:
    context = lake.add_model(checkpoint_dir, name="tiny")["context"]
    lake.add_model(checkpoint_dir, name="tiny", context_length=context)
    with pytest.raises(SettingsError, match=f"registered with a context of {context} tokens"):
        lake.add_model(checkpoint_dir, name="tiny", context_length=context + 1)


def test_a_folder_that_is_not_there_is_refused(lake: proponent.Lake, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint"):
        lake.add_model(tmp_path / "nothing", name="tiny")


def test_the_only_model_needs_no_name(lake: proponent.Lake, checkpoint_dir: Path) -> None:
    with pytest.raises(NotFoundError, match="proponent model add"):
        get_model(lake.store, None)
    lake.add_model(checkpoint_dir, name="tiny")
    assert get_model(lake.store, None).name == "tiny"
    assert facts_of(get_model(lake.store, "tiny")).path == checkpoint_dir.resolve()
    with pytest.raises(NotFoundError, match="no model 'huge'; registered: tiny"):
        get_model(lake.store, "huge")

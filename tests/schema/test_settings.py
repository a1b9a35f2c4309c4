"""Settings are checked when they are made, and their ids say everything that decides an encoding."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from proponent.schema.errors import SettingsError
from proponent.schema.settings import (
    CurvatureSettings,
    EncoderSettings,
    FieldMapping,
    IngestSettings,
    ScanSettings,
    TraceSettings,
)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (EncoderSettings, {"moments": "adagrad"}, "moments"),
        (EncoderSettings, {"blocks": -1}, "blocks"),
        (EncoderSettings, {"side": -8}, "side"),
        (EncoderSettings, {"side": 12}, "side"),
        (EncoderSettings, {"sample": 1}, "sample"),
        (IngestSettings, {"corpus": " "}, "name"),
        (IngestSettings, {"corpus": "c", "max_tokens": 7}, "max_tokens"),
        (IngestSettings, {"corpus": "c", "max_chars": 39}, "max_chars"),
        (IngestSettings, {"corpus": "c", "max_reject_share": 1.1}, "max_reject_share"),
        (IngestSettings, {"corpus": "c", "max_row_bytes": 0}, "max_row_bytes"),
        (IngestSettings, {"corpus": "c", "separator": "a\nb"}, "separator"),
        (IngestSettings, {"corpus": "c", "split_entities": ""}, "split_entities"),
        (FieldMapping, {"title": "{title"}, "--title {title"),
        (ScanSettings, {"memory": (1 << 24) - 1}, "memory must be at least"),
        (TraceSettings, {"threads": 0}, "threads must be"),
        (TraceSettings, {"k": 0}, "k must"),
        (TraceSettings, {"method": "magic"}, "method must"),
        (TraceSettings, {"method": "bm25", "encoder": "e"}, "'bm25' compares words; leave out --encoder"),
        (TraceSettings, {"method": "bm25", "curvature": "task"}, "leave out"),
        (TraceSettings, {"method": "bm25", "approximate": True}, "leave out"),
        (TraceSettings, {"method": "hybrid", "fuse": "bm25"}, "fuse must"),
        (TraceSettings, {"method": "hybrid", "fuse": "gradcos", "curvature": "task"}, "'gradcos' takes no curvature"),
        (TraceSettings, {"method": "hybrid", "rank_constant": 0}, "rank_constant"),
        (TraceSettings, {"method": "gradcos", "curvature": "task"}, "'gradcos' takes no curvature"),
        (TraceSettings, {"min_recall": 1.5}, "min_recall must be between 0 and 1, not 1.5"),
        (CurvatureSettings, {"name": "A task"}, "name"),
        (CurvatureSettings, {"name": "identity"}, "another name"),
        (CurvatureSettings, {"name": "task", "mixing": -0.1}, "mixing"),
        (CurvatureSettings, {"name": "task", "mixing": 0.9999999}, "between 0 and 0.99"),
    ],
)
def test_a_setting_out_of_range_is_named(kind: type, values: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        kind(**values)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        EncoderSettings().side = 8  # type: ignore[misc]


def test_dimensions_are_two_groups_a_block() -> None:
    assert EncoderSettings(blocks=8, side=64).dim == 65_536  # the setting of arXiv:2410.17413


@pytest.mark.parametrize(
    ("layers", "blocks", "side", "dim"),
    [
        (1, 1, 40, 3_200),
        (4, 4, 40, 12_800),
        (6, 6, 40, 19_200),
        (7, 7, 32, 14_336),
        (8, 8, 32, 16_384),
        (80, 8, 32, 16_384),
    ],
)
def test_an_open_size_goes_by_the_layers(layers: int, blocks: int, side: int, dim: int) -> None:
    chosen = EncoderSettings(seed=3).of_layers(layers)
    assert (chosen.blocks, chosen.side, chosen.dim, chosen.seed) == (blocks, side, dim, 3)


def test_a_size_that_was_named_stays() -> None:
    assert EncoderSettings(blocks=2, side=16).of_layers(8) == EncoderSettings(blocks=2, side=16)
    assert EncoderSettings(side=64).of_layers(12).blocks == 8
    assert EncoderSettings(blocks=2).of_layers(12).side == 40
    with pytest.raises(AssertionError, match="of_layers"):
        _ = EncoderSettings(side=16).dim


def test_the_sample_is_larger_than_a_group_of_dimensions() -> None:
    assert EncoderSettings(side=16).sample_size >= 16**2
    assert EncoderSettings(sample=7).sample_size == 7


def test_settings_survive_json() -> None:
    settings = EncoderSettings(moments="none", blocks=3, side=16, seed=5, sample=9)
    assert EncoderSettings(**settings.to_dict()) == settings


def test_every_setting_and_the_model_decide_the_encoder_id() -> None:
    variants: list[dict[str, Any]] = [{}, {"moments": "none"}, {"blocks": 3}, {"side": 8}, {"seed": 1}, {"sample": 5}]
    variants.append({"precision": "bfloat16"})
    ids = {EncoderSettings(**variant).encoder_id(model_id="m") for variant in variants}
    assert len(ids | {EncoderSettings().encoder_id(model_id="n")}) == len(variants) + 1
    assert EncoderSettings().encoder_id(model_id="m") == EncoderSettings().encoder_id(model_id="m")


def test_a_field_that_is_switched_off_is_not_mapped() -> None:
    assert {name: selector.names for name, selector in FieldMapping(url=None, id="key").selectors.items()} == {
        "id": ("key",),
        **{name: (name,) for name in ("text", "source", "date", "title", "author", "language", "license", "entities")},
        "trained_on": ("trained_on",),
    }

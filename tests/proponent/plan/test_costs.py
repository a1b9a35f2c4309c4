"""The cost model, against what torch counts, what is stored and arithmetic by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, LlamaConfig, MixtralConfig

from proponent.plan import costs
from proponent.plan.calibrate import _examples, _part_of_model
from proponent.plan.machines import Machine, machine, storage
from proponent.plan.shape import Shape, config_of_size, shape_of_config
from proponent.plan.workload import Workload
from proponent.schema.errors import SettingsError
from proponent.schema.settings import CODES, EncoderSettings
from proponent.store.codes import codes_arrays, quantise

LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "vocab_size": 500,
}


def workload(config: Any, *, side: int = 16, blocks: int = 2, **more: Any) -> Workload:
    settings = EncoderSettings(side=side, blocks=blocks, moments="none")
    return Workload(shape=shape_of_config(config), settings=settings, **({"tokens": 100_000} | more))


def value(lines: list[costs.Line], step: str, quantity: str) -> float:
    [found] = [line.value for line in lines if (line.step, line.quantity) == (step, quantity)]
    return found


@pytest.mark.parametrize(
    "config", [LlamaConfig(**LLAMA), GPT2Config(n_embd=64, n_layer=8, n_head=4, vocab_size=500)], ids=["llama", "gpt2"]
)
def test_operations_are_those_that_torch_counts(config: Any) -> None:
    config._attn_implementation = "eager"  # whose products torch's counter sees; it computes those under the mask, too
    work = workload(config, passage_tokens=96)
    projector, part = _part_of_model(config, work)
    assert part.shape == work.shape
    with FlopCounterMode(display=False) as counted:
        projector.phi(_examples(projector, 96, n=3))
    masked = 6 * 96**2 * work.shape.width * work.shape.layers
    predicted = costs.passage_flops(work, 96) - costs.whitening_flops(work) + masked
    # Nothing flows back beyond the first layer's matrices, which the model leaves aside.
    assert 0.93 < counted.get_total_flops() / 3 / predicted <= 1.0


def test_a_shape_is_read_off_a_configuration() -> None:
    shape = shape_of_config(LlamaConfig(**LLAMA))
    one_layer = 4 * 64 * 64 + 3 * 64 * 192
    assert (shape.covered, shape.matrices, shape.layers) == (8 * one_layer, 56, 8)
    assert shape.sides == 8 * (4 * 128 + 3 * 256)
    assert (shape.width, shape.vocabulary) == (64, 500)
    assert shape.parameters == 8 * one_layer + 2 * 500 * 64 + 17 * 64


def test_of_experts_those_count_that_a_token_is_sent_to() -> None:
    sizes = LLAMA | {"num_hidden_layers": 2}
    two = shape_of_config(MixtralConfig(**sizes, num_local_experts=2, num_experts_per_tok=2))
    eight = shape_of_config(MixtralConfig(**sizes, num_local_experts=8, num_experts_per_tok=2))
    assert eight.covered == two.covered
    assert eight.sides == two.sides
    assert eight.parameters > 2 * two.parameters


@pytest.mark.parametrize("parameters", [20_000_000, 135_000_000, 8_000_000_000, 70_000_000_000])
def test_a_size_stands_for_a_llama_of_about_that_size(parameters: int) -> None:
    assert 0.8 < shape_of_config(config_of_size(parameters)).parameters / parameters < 1.25


@pytest.mark.parametrize("codes", CODES)
def test_a_stored_encoding_takes_the_bytes_that_are_planned(codes: str) -> None:
    work = workload(LlamaConfig(**LLAMA), codes=codes)
    unit = np.full((1, work.settings.dim), work.settings.dim**-0.5, np.float32)
    vectors = sum(column.nbytes for column in codes_arrays(quantise(unit, codes)).values())
    assert work.row_bytes == vectors + 26 + 4 * 4


def paper() -> Workload:
    settings = EncoderSettings(side=64, blocks=8, moments="file")
    shape = shape_of_config(config_of_size(8_000_000_000))
    return Workload(shape=shape, settings=settings, tokens=160 * 10**9, passage_tokens=512)


def test_the_papers_scale_is_what_its_numbers_say() -> None:
    lines = costs.plan(paper(), machine("h100"), storage(), devices=64)
    work = paper()
    assert value(lines, "store", "one encoding") == 65_536 + 65_536 // 64 * 2 + 42  # int8: 64 KiB and scales
    # 4 operations for each of 8e9 weights and 160e9 tokens; attention and projections on top.
    assert 1.0 < value(lines, "encode", "operations") / (4 * work.shape.covered * 160e9) < 1.1
    assert value(lines, "ask", "bytes of one scan") == 312_500_000 * work.row_bytes
    assert value(lines, "encode", "time on 64 devices") == pytest.approx(
        value(lines, "encode", "device time") * 3600 / 64
    )


def test_estimated_moments_double_the_passes_of_fitting() -> None:
    config = LlamaConfig(**LLAMA)
    without = workload(config)
    estimated = replace(without, settings=EncoderSettings(side=16, blocks=2, moments="estimated"))
    assert costs.fit_flops(estimated)[0] == 2 * costs.fit_flops(without)[0]
    assert costs.fit_flops(estimated)[1] == costs.fit_flops(without)[1]


def test_what_does_not_fit_into_memory_is_read_from_disk() -> None:
    work = workload(LlamaConfig(**LLAMA), tokens=10**9)
    large: Machine = machine("h100")
    small = replace(large, memory=1e9, read_bytes=1e8)
    stored = work.passages * work.row_bytes
    assert costs.scan_seconds(work, small, devices=1) == pytest.approx(stored / 1e8)
    assert costs.scan_seconds(work, large, devices=1) < stored / 1e8
    assert costs.scan_seconds(work, small, devices=4) == pytest.approx(stored / 1e8 / 4)


def test_questions_that_nobody_asks_share_no_scan() -> None:
    doing = machine("h100")
    alone = workload(LlamaConfig(**LLAMA), questions=1, batch=100)
    assert costs.scan_seconds(alone, doing, devices=1) == costs.scan_seconds(replace(alone, batch=1), doing, devices=1)


def test_a_passage_that_is_not_full_counts() -> None:
    assert workload(LlamaConfig(**LLAMA), tokens=1001, passage_tokens=10).passages == 101


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"passage_tokens": 0}, {"questions": -1}, {"codes": "int2"}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        workload(LlamaConfig(**LLAMA), **wrong)


def test_shapes_are_made_without_memory_for_weights() -> None:
    shape: Shape = shape_of_config(config_of_size(70_000_000_000))
    assert shape.parameters > 5e10
    assert torch.get_default_device().type == "cpu"

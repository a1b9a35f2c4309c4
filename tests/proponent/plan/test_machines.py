"""Machines of the table, a user's own, and the one at hand."""

from pathlib import Path

import pytest
from transformers import LlamaConfig

from proponent.plan.calibrate import calibrate
from proponent.plan.machines import HERE, machine, storage
from proponent.plan.shape import shape_of_config
from proponent.plan.workload import Workload
from proponent.schema.errors import InputError, SettingsError
from proponent.schema.settings import EncoderSettings


def test_a_table_machine_reaches_a_share_of_its_peak() -> None:
    assert machine("a100").encode_flops == pytest.approx(3.12e14 * 0.35)
    assert machine("a100", use=0.5).encode_flops == pytest.approx(1.56e14)


def test_a_machine_of_ones_own_needs_to_say_only_what_differs(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("[machine.a100]\nprice = 1.25\n\n[storage]\ngigabyte_month = 0\n", "utf-8")
    assert machine("a100", own=own).price == 1.25
    assert machine("a100", own=own).memory == machine("a100").memory
    assert storage(own).gigabyte_month == 0
    assert storage(own).thousand_puts == storage().thousand_puts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", "is no TOML file"),
        ("[machine.mine]\nprice = 1\n", "lacks, or does not know"),
        ("[machine.a100]\nspeed = 1\n", "lacks, or does not know"),
        ("[machines.a100]\nprice = 1\n", "it may have"),
        ("price = 1\n", "it may have"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(text, "utf-8")
    with pytest.raises((InputError, SettingsError), match=message):
        machine("mine" if "mine" in text else "a100", own=own)


def test_an_unknown_machine_is_told_which_there_are() -> None:
    with pytest.raises(SettingsError, match="a100, cpu-core, h100"):
        machine("abacus")


def test_the_machine_at_hand_is_measured() -> None:
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=100
    )
    settings = EncoderSettings(side=8, blocks=2, moments="none")
    work = Workload(shape=shape_of_config(config), settings=settings, tokens=10_000, passage_tokens=32)
    steps: list[str] = []
    found = calibrate(config, work, price=2.0, seconds=0.5, tell=steps.append)
    assert (found.name, found.price, steps) == (HERE, 2.0, ["encoding", "decomposing", "scanning"])
    rates = (found.encode_flops, found.double_flops, found.product_flops, found.scan_bytes, found.read_bytes)
    # Between what a pocket calculator and a supercomputer do; anything else is a mistake in units.
    assert all(1e4 < rate < 1e18 for rate in rates)
    assert found.memory > 1e6

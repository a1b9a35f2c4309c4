"""A model that is spread over devices encodes and is asked by the same commands, with the same outcome."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import proponent
from proponent.cli import cli
from proponent.schema.errors import ModelError, SettingsError

HERE = ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.2", "model.norm")
MAP = dict.fromkeys(HERE, "cpu") | {"model.layers.1": "disk", "lm_head": "disk"}
ASKED = ("The capital of country 7 lies", " on a river")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [{"id": str(n), "text": f"The capital of country {n} lies on a river."} for n in range(90)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "corpus.jsonl"


def job(lake: Path, corpus: Path, checkpoint: Path, *options: object) -> tuple[Any, Any]:
    """Run the commands, two workers encoding; return the encodings and the hits."""
    places = [
        ("init", lake, "-q"),
        ("model", "add", lake, checkpoint, "--name", "m", "-q"),
        ("ingest", lake, corpus, "--corpus", "c", "-q"),
        ("encode", lake, "--blocks", 1, "--side", 8, "--workers", 2, "-q", *options),
        ("trace", lake, "--prompt", ASKED[0], "--target", ASKED[1], "-q", *options),
    ]
    for arguments in places:
        command = [sys.executable, "-m", "proponent", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    with proponent.open(lake) as opened:
        encoded = opened.store.table("encodings_m", at=opened.snapshot).to_table().sort_by("text_hash")
        return encoded, opened.sql("SELECT side, rank, passage_id, score FROM hits ORDER BY ALL").to_dicts()


@pytest.mark.full
def test_a_spread_model_encodes_and_is_asked_with_the_same_outcome(
    tmp_path: Path, corpus: Path, checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    wanted = job(tmp_path / "one", corpus, checkpoint_dir)
    found = job(tmp_path / "spread", corpus, checkpoint_dir, "--device-map", tmp_path / "map.json")
    assert found[0].equals(wanted[0])
    assert found[1] == wanted[1]
    assert len(found[1]) > 10
    with proponent.open(tmp_path / "spread") as lake:
        [run] = lake.sql("SELECT settings FROM runs WHERE kind = 'encode'").to_dicts()
        assert json.loads(run["settings"])["device_map"] == MAP
    spread, whole = proponent.open(tmp_path / "spread", device_map="auto"), "full gradients take a model that is on one"
    with spread as lake, pytest.raises(SettingsError, match=whole):
        lake.recompute("last")
    nowhere = proponent.open(tmp_path / "spread", device_map={"model": "nowhere"})
    with nowhere as lake, pytest.raises(ModelError, match="cannot be loaded"):
        lake.trace("Another prompt", " and target")


@pytest.mark.parametrize(
    ("text", "says"), [("[1, 2]", "is no JSON object such as"), ("{", "and no JSON file"), (None, "and no JSON file")]
)
def test_what_is_no_map_is_told(tmp_path: Path, text: str | None, says: str) -> None:
    proponent.init(tmp_path / "lake").close()
    if text is not None:
        (tmp_path / "map.json").write_text(text)
    asked = ["trace", str(tmp_path / "lake"), "--prompt", "x", "--device-map", str(tmp_path / "map.json")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())

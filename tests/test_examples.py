"""The examples in README and docs run: shell blocks line by line, Python whole, SQL on the demonstration's lake."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from proponent.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|console|python|sql)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = {page: BLOCK.findall(page.read_text("utf-8")) for page in PAGES}


@pytest.fixture
def workplace(tmp_path: Path, demo_folder: Path, make_checkpoint: Callable[..., Path], sentences: list[str]) -> Path:
    """A folder with what the examples name: the demonstration, a checkpoint, a corpus and queries."""
    shutil.copytree(demo_folder, tmp_path / "proponent-demo")
    make_checkpoint(tmp_path / "checkpoint", seed=1)  # one that does not end the text at once
    rows = [
        {"key": str(place), "text": text, "source": "letters", "day": f"20{20 + place % 5}-01-31"}
        for place, text in enumerate([*sentences, "The river runs through a quiet town."])
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    asked = [("Chile", "Santiago"), ("Peru", "Lima"), ("Kenya", "Nairobi")]
    lines = [json.dumps({"prompt": f"{name}. Capital:", "target": f" {capital}"}) for name, capital in asked]
    (tmp_path / "capitals.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLES[page]], ids=lambda page: page.name)
def test_examples_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    for language, block in EXAMPLES[page]:
        if language == "python":
            exec(compile(block, f"{page.name}, an example", "exec"), {})
        for arguments in _commands(language, block):
            cli.main(arguments, standalone_mode=False)


def _commands(language: str, block: str) -> list[list[str]]:
    if language == "sql":
        return [["sql", "proponent-demo/lake", block]]
    lines = block.replace("\\\n", " ").splitlines()
    prompt = "$ " if language == "console" else ""
    return [shlex.split(line.removeprefix(prompt))[1:] for line in lines if line.startswith(f"{prompt}proponent ")]

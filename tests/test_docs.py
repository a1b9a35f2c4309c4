"""What the documents say about the command line is so."""

import re
from pathlib import Path

import click
import pytest

from proponent.cli.reference import commands, render

ROOT = Path(__file__).parents[1]
COMMANDS = {context.command_path: command for command, context in commands()}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = "\n".join(page.read_text("utf-8") for page in PAGES if page.name != "commands.md")


def test_command_reference_is_current() -> None:
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == render(), "run `make docs`"


def test_command_reference_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = render()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert render() == before


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example(path: str) -> None:
    text = COMMANDS[path].help or ""
    lines = text.replace("\b", "").splitlines()
    assert lines, "there is help"
    assert lines[0].strip().endswith("."), "the first line of the help is a sentence"
    place = next((number for number, line in enumerate(lines) if line.strip() in ("Example:", "Examples:")), None)
    assert place is not None, "the help ends in an example"
    assert lines[place + 1].strip().startswith(path)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_parameter_is_explained(path: str) -> None:
    options = [parameter for parameter in COMMANDS[path].params if isinstance(parameter, click.Option)]
    assert all(option.help for option in options)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_named_in_a_page_that_a_person_wrote(path: str) -> None:
    assert re.search(rf"\b{re.escape(path)}\b", WRITTEN)


def test_pages_name_only_commands_that_exist() -> None:
    tops = {path.split()[1] for path in COMMANDS if " " in path}
    code = re.findall(r"```.*?```|`[^`\n]+`", WRITTEN, flags=re.DOTALL)
    named = {name for text in code for name in re.findall(r"(?:^|[\s/`])proponent ((?!import\b)[a-z][a-z-]+)", text)}
    assert named <= tops


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing

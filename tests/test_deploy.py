"""The recipes in deploy/: what validators say of them, and that every command in them is one."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proponent.cli import cli

DEPLOY = Path(__file__).parents[1] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of every command of proponent in the recipes."""
    for path in MANIFESTS:
        for document in documents(path):
            spec = document.get("spec", {})
            if "entrypoint" in spec:
                yield path.name, shlex.split(spec["entrypoint"])[1:]
            pod = spec.get("template", {}).get("spec", {})
            yield from ((path.name, list(map(str, one["args"]))) for one in pod.get("containers", []))
    for path in UNITS:
        [line] = re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)
        yield path.name, shlex.split(line)[1:]


@pytest.mark.parametrize(("name", "words"), [pytest.param(*one, id=f"{one[0]}-{one[1][0]}") for one in commands()])
def test_every_command_in_a_recipe_is_understood(name: str, words: list[str]) -> None:
    parent = cli.make_context("proponent", [words[0]])
    command = cli.get_command(parent, words[0])
    assert command is not None
    if "--engine" in words and not any("--engine" in one.opts for one in command.params):
        pytest.skip("this version has no --engine")
    command.make_context(words[0], words[1:], parent=parent)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_kubernetes_takes(path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        if document["apiVersion"].startswith("ray.io/"):
            pytest.skip("KubeRay's own kinds are not among the schemas")
        validator.validate(document, validator.latest_version(), strict=True)


def test_pods_run_without_rights_and_secrets_are_referred_to() -> None:
    for path in (DEPLOY / "kubernetes" / name for name in ("serve.yaml", "encode.yaml", "work.yaml")):
        pod = documents(path)[0]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        [container] = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "proponent"}}]
        assert not [one for one in container["env"] if re.search("SECRET|TOKEN|PASSWORD", one["name"])]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_what_systemd_takes(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = path.read_text("utf-8").replace("/opt/proponent/bin/proponent", shutil.which("true") or "/bin/true")
    (tmp_path / path.name).write_text(text)
    command = ["systemd-analyze", "verify", str(tmp_path / path.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_alerts_are_what_prometheus_takes_and_their_runbooks_are_there() -> None:
    rules = [rule for group in documents(DEPLOY / "alerts.yaml")[0]["groups"] for rule in group["rules"]]
    page = (DEPLOY.parent / "docs" / "operations.md").read_text("utf-8")
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("#")
    }
    for rule in rules:
        page_name, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page_name == "docs/operations.md"
        assert anchor in anchors
    if shutil.which("promtool") is not None:
        subprocess.run(["promtool", "check", "rules", str(DEPLOY / "alerts.yaml")], check=True, capture_output=True)


def test_alerts_ask_for_metrics_that_there_are() -> None:
    from proponent.observe.events import COUNTS, SPANS

    told = {f"proponent_{name}_total" for name in COUNTS} | {f"proponent_{name}_seconds_bucket" for name in SPANS}
    source = (DEPLOY.parent / "store" / "readings.py").read_text("utf-8")
    told |= {f"proponent_{name}" for name in re.findall(r'Gauge\("(\w+)"', source)} | {"proponent_catalog_up"}
    asked = set(re.findall(r"proponent_\w+", (DEPLOY / "alerts.yaml").read_text("utf-8")))
    assert asked <= told

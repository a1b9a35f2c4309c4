"""The whole study, step by step, each in a process of its own; a step that is done is not done again.

    python benchmarks/fact_tracing/run.py --data FOLDER --work FOLDER             # far more than an hour on two cores
    python benchmarks/fact_tracing/run.py --data FOLDER --work FOLDER --size gpu --at-once 4 --threads 4
    python benchmarks/fact_tracing/run.py --data FOLDER --work FOLDER --only compare   # the comparison of all methods
    python benchmarks/fact_tracing/run.py --data FOLDER --work FOLDER --again report

FOLDER of `--data` (or the variable PROPONENT_TREX) has `trex_facts.parquet` and `trex_sentences.parquet`.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from sizes import SIZES
from work import Work

STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    "corpus": (),
    "train": ("corpus",),
    "fill_lake": ("train",),
    "vectors": ("train",),
    "peer": ("train",),
    "exact": ("vectors",),
    "ablate": ("vectors", "fill_lake"),
    "steps": ("ablate", "exact", "peer"),
    "measure": ("fill_lake", "peer"),
    "compare": ("measure",),
    "stages": ("fill_lake",),
    "report": ("steps", "measure", "stages"),
}
"""Every step with those whose results it reads, in an order in which they can be done."""

TABLES: Final = {"report": "results.md", "compare": "methods.md"}
"""What steps write for people."""


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PROPONENT_TREX"), help="folder of the T-REx files")
    parser.add_argument("--work", type=Path, required=True, help="folder that is worked in")
    parser.add_argument("--size", choices=[*SIZES], default="cpu", help="gpu wants a GPU of much memory")
    parser.add_argument("--threads", type=int, default=2, help="of each step")
    parser.add_argument("--at-once", type=int, default=1, help="steps that may run beside each other")
    parser.add_argument(
        "--again", nargs="*", choices=[*STEPS], default=[], help="steps to do anew, with all after them"
    )
    parser.add_argument("--only", choices=[*STEPS], default="report", help="do this step and what it needs")
    parser.add_argument("--publish", action="store_true", help="copy the tables beside this script")
    parser.add_argument("--step", choices=[*STEPS], help="do one step in this process")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("name the folder of the T-REx files by --data or PROPONENT_TREX")
    for name in ("trex_facts.parquet", "trex_sentences.parquet"):
        if not (chosen.data / name).is_file():
            parser.error(f"{chosen.data} has no {name}; name the folder of both by --data or PROPONENT_TREX")
    if chosen.publish and chosen.only not in TABLES:
        parser.error(f"what is published are the tables of {' and '.join(TABLES)}")
    work = Work(chosen.data.resolve(), chosen.work.resolve(), chosen.size, chosen.threads)
    if chosen.step:
        importlib.import_module(chosen.step).run(work)
        return
    work.done("").mkdir(parents=True, exist_ok=True)
    if work.size_of_folder() != chosen.size:
        parser.error(f"{chosen.work} has a study of another size, {work.size_of_folder()}; name another folder")
    _forget(work, chosen.again)
    _run(work, _needed(chosen.only), chosen.at_once)
    if chosen.publish:
        table = work.folder / TABLES[chosen.only]
        published = table.name if chosen.size == "cpu" else f"{table.stem}_{chosen.size}.md"
        shutil.copy(table, Path(__file__).with_name(published))


def _forget(work: Work, again: Sequence[str]) -> None:
    """Take steps, whose findings are given up, and all that read what they make for not done."""
    for step in again:
        work.found(step).unlink(missing_ok=True)
    for step, needs in STEPS.items():
        if step in again or not all(work.done(one).exists() for one in needs):
            work.done(step).unlink(missing_ok=True)


def _needed(step: str) -> set[str]:
    """Return a step and all whose results it is made of."""
    return {step}.union(*map(_needed, STEPS[step]))


def _run(work: Work, wanted: Set[str], at_once: int) -> None:
    """Do what is wanted and not done. Raises CalledProcessError when a step fails, after those that run have ended."""
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    failed: dict[str, subprocess.Popen[bytes]] = {}
    while True:
        for step, needs in STEPS.items():
            ready = all(work.done(one).exists() for one in needs) and not work.done(step).exists()
            if step in wanted and ready and not failed and step not in running and len(running) < at_once:
                print(f"{step} ...", flush=True)
                running[step] = _start(work, step), time.monotonic()
        if not running:
            break
        time.sleep(0.2)
        for step, (process, began) in list(running.items()):
            if process.poll() is None:
                continue
            del running[step]
            if process.returncode:
                failed[step] = process
                continue
            work.done(step).write_text(f"{time.monotonic() - began:.0f} seconds\n")
            print(f"{step}: {time.monotonic() - began:.0f} s", flush=True)
    for process in failed.values():
        raise subprocess.CalledProcessError(process.returncode, process.args)


def _start(work: Work, step: str) -> subprocess.Popen[bytes]:
    options = ["--data", work.data, "--work", work.folder, "--size", work.size_name, "--threads", str(work.threads)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(work.threads))
    return subprocess.Popen([sys.executable, __file__, *options, "--step", step], env=os.environ | threads)


if __name__ == "__main__":
    main()

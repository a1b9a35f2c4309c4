"""The whole study, step by step, each in a process of its own; a step that is done is not done again.

    python benchmarks/fact_tracing/run.py --data FOLDER --work FOLDER             # about an hour on two cores
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
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from sizes import SIZES
from work import Work

STEPS = ("corpus", "train", "fill_lake", "vectors", "ablate", "exact", "peer", "steps", "measure", "report")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PROPONENT_TREX"), help="folder of the T-REx files")
    parser.add_argument("--work", type=Path, required=True, help="folder that is worked in")
    parser.add_argument("--size", choices=[*SIZES], default="cpu", help="gpu has not been run yet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", nargs="*", choices=STEPS, default=[], help="steps to do anew, with all after them")
    parser.add_argument("--publish", action="store_true", help="copy the tables beside this script")
    parser.add_argument("--step", choices=STEPS, help="do one step in this process")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("name the folder of the T-REx files by --data or PROPONENT_TREX")
    work = Work(chosen.data.resolve(), chosen.work.resolve(), chosen.size, chosen.threads)
    if chosen.step:
        importlib.import_module(chosen.step).run(work)
        return
    (work.folder / "done").mkdir(parents=True, exist_ok=True)
    if work.size_of_folder() != chosen.size:
        parser.error(f"{chosen.work} has a study of another size, {work.size_of_folder()}; name another folder")
    stale = False
    for step in STEPS:
        done = work.folder / "done" / step
        stale = stale or step in chosen.again or not done.exists()  # what comes after reads what was made anew
        if not stale:
            continue
        print(f"{step} ...", flush=True)
        began = time.monotonic()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(chosen.threads))
        options = ["--data", work.data, "--work", work.folder, "--size", chosen.size, "--threads", str(chosen.threads)]
        subprocess.run([sys.executable, __file__, *options, "--step", step], check=True, env=os.environ | threads)
        done.write_text(f"{time.monotonic() - began:.0f} seconds\n")
        print(f"{step}: {time.monotonic() - began:.0f} s", flush=True)
    if chosen.publish:
        shutil.copy(work.folder / "results.md", Path(__file__).with_name("results.md"))


if __name__ == "__main__":
    main()

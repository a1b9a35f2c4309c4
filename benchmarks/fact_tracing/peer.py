"""bergson's TrackStar on the same model, passages and queries, where it is installed; else nothing is compared.

It runs under the interpreter that PROPONENT_BERGSON names, by default this one: bergson wants other packages than
proponent does, and an environment of its own is best. It gets the token ids that the lake's encoder sees, and each of
its settings a run in the TREC format, which `proponent evaluate` reads.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from ablate import DEFAULT
from ranking import Judge
from vectors import BASE, FORMER, VARIANTS, Examples, examples_of, load, moments_of
from work import MAIN, Work, read_rows

from proponent.encode.encoder import Projector, fit
from proponent.encode.gradients import Example
from proponent.schema.settings import DEFAULT_CODES, EncoderSettings
from proponent.store.codes import quantise

OWN_ENCODERS: Final = (BASE, FORMER)
"""Encoders of the project that are put beside bergson's settings."""
_DEPTH: Final = 100


def run(work: Work) -> None:
    """Run bergson; judge its scores, and keep what they took."""
    torch.set_num_threads(work.threads)
    python = os.environ.get("PROPONENT_BERGSON", sys.executable)
    if subprocess.run([python, "-c", "import bergson"], check=False, capture_output=True).returncode:
        print(f"{python} has no bergson; it is left out")
        work.write("peer", {})
        return
    folder = work.folder / "bergson"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.npy"):
        if not work.is_current(path, MAIN):
            path.unlink()
    _write_ids(work, folder)
    own = _own_costs(work)
    script = Path(__file__).with_name("bergson_run.py")
    try:
        command = [python, script, folder, work.model(MAIN), str(work.threads)]
        subprocess.run(command, check=True, timeout=work.size.peer_seconds)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(
            f"bergson did not come to its end ({type(error).__name__}); settings that it had done are kept", flush=True
        )
    judge, found = Judge(work), {}
    ids = [row["id"] for row in read_rows(work.corpus)]
    for path in sorted(folder.glob("*.npy")):
        scores = np.load(path)
        told = json.loads(path.with_suffix(".json").read_text("utf-8"))
        _write_run(folder / f"{path.stem}.run", [fact["id"] for fact in judge.facts], ids, scores)
        found[told["name"]] = {**told, "run": f"{path.stem}.run", "values": judge.values(scores)}
    work.write("peer", found | {"own": own})


def _write_ids(work: Work, folder: Path) -> None:
    examples = examples_of(work)
    for name, some in (("passages", examples.passages), ("queries", examples.facts)):
        rows = ({"input_ids": list(one.token_ids), "labels": _labels(one)} for one in some)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _labels(example: Example) -> list[int]:
    silent = len(example.token_ids) - example.n_loss
    return [-100] * silent + list(example.token_ids[silent:])


def _write_run(path: Path, facts: list[str], passages: list[str], scores: np.ndarray) -> None:
    lines = []
    for fact, row in zip(facts, scores, strict=True):
        for rank, place in enumerate(np.argsort(-row, kind="stable")[:_DEPTH], start=1):
            lines.append(f"{fact} Q0 {passages[place]} {rank} {row[place]:.8g} bergson\n")
    path.write_text("".join(lines), "utf-8")


def _every(settings: EncoderSettings, examples: Examples) -> int:
    """Return the step between passages that leaves about as many as the project's own fit draws."""
    return max(1, round(len(examples.passages) / settings.sample_size))


def _own_costs(work: Work) -> dict[str, dict[str, float]]:
    """Return seconds of the project's own way in memory, from a loaded model to all scores, and bytes of codes."""
    checkpoint = load(work, MAIN)
    examples = examples_of(work)
    found = {}
    Projector(checkpoint, work.size.encoder, None).phi(examples.facts[:8])  # a GPU's libraries are loaded by first use
    for name in OWN_ENCODERS:
        settings = VARIANTS[name].settings(work.size.encoder.of_layers(checkpoint.facts.n_layers))
        start, began = time.monotonic(), time.process_time()
        moments = moments_of(work, checkpoint, VARIANTS[name])
        encoder, _ = fit(Projector(checkpoint, settings, moments), examples.passages[:: _every(settings, examples)])
        fitted = time.process_time()
        passages, queries = encoder.encode(examples.passages).vectors, encoder.encode(examples.facts).vectors
        units = torch.nn.functional.normalize(passages)
        torch.nn.functional.normalize(queries) @ units.T
        wall, done = time.monotonic() - start, time.process_time()
        codes = quantise(units.numpy(), DEFAULT_CODES)
        size = codes.codes.nbytes + (0 if codes.scales is None else codes.scales.nbytes)
        seconds = {"wall": wall, "fit": fitted - began, "encode": done - fitted}
        found[DEFAULT if name == BASE else name] = {"d": settings.dim, "bytes": size, **seconds}
    return found

"""A worker that trains a model on some of a job's texts, and tells how likely it finds the job's targets.

`python -m proponent.query.evaluate.trainer JOB FOLDER` reads a task a line from its standard input, as in
`{"places": [0, 3], "seed": 0}`, and answers each with a line. It ends when its input closes, and when its parent
is gone: between two steps, or while a command trains.

Notable: a job is a file, so that a worker can be started on it anew; what a task gives depends on job and task alone,
and on the number of threads in the last bits.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from proponent.encode.checkpoint import load_checkpoint, load_tokenizer, read_config, read_facts
from proponent.encode.tail_patch import token_losses
from proponent.encode.tokens import query_example
from proponent.encode.training import token_rows, train
from proponent.schema.errors import ModelError, ProponentError
from proponent.schema.settings import TrainingSettings

_SAID: Final = 300
"""Characters of what a command that failed said last."""
_LOOK_S: Final = 0.5
"""Seconds between two looks, while a command trains, at whether the parent is still there."""


@dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    texts: tuple[str, ...]
    targets: tuple[tuple[str, str], ...]
    """Prompts and targets."""
    checkpoint: str
    """Folder with the architecture (config.json) and the tokenizer; unused where a command trains."""
    context_length: int
    training: TrainingSettings
    command: tuple[str, ...] = ()
    """Words of a command that trains instead."""
    threads: int = 1

    def write(self, path: Path) -> None:
        """Write the job for workers."""
        path.write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Return a job that was written."""
        fields = json.loads(path.read_text("utf-8"))
        fields["training"] = TrainingSettings(**fields["training"])
        fields["targets"] = tuple((prompt, target) for prompt, target in fields["targets"])
        return cls(**{**fields, "texts": tuple(fields["texts"]), "command": tuple(fields["command"])})


class Task(NamedTuple):
    """A model to be trained."""

    places: tuple[int, ...]
    """Texts that it is trained on, by their places in the job; one that stands there twice is seen twice as often."""
    seed: int


class Output(NamedTuple):
    """What a trained model makes of the targets."""

    log_probability: list[float]
    """Summed log-probability of each target's tokens, in nats."""
    said: list[bool]
    """Whether each target is what the model says itself: all its tokens are the likeliest ones."""


def carry_out(job: Job, task: Task, *, alive: Callable[[], object] = lambda: None) -> Output:
    """Train the model of a task and measure it; `alive` is called after every step, and while a command trains.

    Raises ModelError when it cannot be trained, or the command's result cannot be loaded.
    """
    texts = [job.texts[place] for place in task.places]
    if job.command:
        return _by_command(job, texts, task.seed, alive)
    config, tokenizer = read_config(Path(job.checkpoint)), load_tokenizer(Path(job.checkpoint))
    trained = train(
        config,
        token_rows(tokenizer, texts, context_length=job.context_length),
        job.training,
        seed=task.seed,
        pad=0,
        progress=lambda *_step: alive(),
    )
    return measure(trained.model, tokenizer, job.targets, context_length=job.context_length)


@torch.no_grad()
def measure(model: Any, tokenizer: Any, targets: Sequence[tuple[str, str]], *, context_length: int) -> Output:
    """Return what a model makes of prompts and targets. Raises EncodingError for one that it cannot read."""
    output = Output([], [])
    for prompt, target in targets:
        example = query_example(tokenizer, prompt, target, context_length=context_length)
        losses, likeliest = token_losses(model, example)
        output.log_probability.append(-float(losses.double().sum()))
        output.said.append(bool(likeliest.all()))
    return output


def _by_command(job: Job, texts: Sequence[str], seed: int, alive: Callable[[], object]) -> Output:
    """Let the command train: a file of the texts in, a folder with a checkpoint out."""
    with tempfile.TemporaryDirectory(prefix="proponent-retrain-") as name:
        folder = Path(name)
        passages, output = folder / "passages.jsonl", folder / "model"
        passages.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        given = {"{passages}": str(passages), "{output}": str(output), "{seed}": str(seed)}
        _run([_filled(word, given) for word in job.command], folder / "log.txt", alive)
        loaded = load_checkpoint(read_facts(output))
        return measure(loaded.model, loaded.tokenizer, job.targets, context_length=loaded.facts.context_length)


def _filled(word: str, given: dict[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(name, value)
    return word


def _run(command: list[str], log: Path, alive: Callable[[], object]) -> None:
    with log.open("wb") as file:
        try:
            started = subprocess.Popen(  # noqa: S603  (the user's own command, word by word and without a shell)
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise ModelError(f"the command that trains, {command[0]!r}, cannot be started: {error.strerror}") from error
        code = _ended(started, alive)
    if code:
        lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise ModelError(f"the command that trains ended with exit code {code}; it said last: {lines[-1][-_SAID:]}")


def _ended(started: subprocess.Popen[bytes], alive: Callable[[], object]) -> int:
    """Wait for the end of a command; return its exit code."""
    with started:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return started.wait(_LOOK_S)
                alive()
        except BaseException:
            started.kill()
            raise


def main(path: str, folder: str) -> None:
    """Do tasks until the standard input closes. What one fails with is its answer."""
    parent = os.getppid()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def alive() -> None:
        if os.getppid() != parent:
            os._exit(1)

    # Others remove it: who trains is killed, and cannot remove what it has written.
    tempfile.tempdir = folder
    job = Job.read(Path(path))
    torch.set_num_threads(job.threads)
    for line in sys.stdin:
        fields = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = carry_out(job, Task(tuple(fields["places"]), fields["seed"]), alive=alive)._asdict()
        except ProponentError as error:
            answer = {"kind": type(error).__name__, "error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

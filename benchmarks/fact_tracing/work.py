"""Where a study's files lie, and how they are read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sizes import SIZES, Size

ROW: Final = "row:"
"""Ids of passages that are filled-in prompts begin with it; the fact's id follows."""
MAIN: Final = "main"
"""The model that is studied, at the end of its training."""
STAGES: Final = ("quarter", "half", MAIN)
"""Checkpoints of the model that is studied."""
SMALL: Final = "small"


@dataclass(frozen=True)
class Work:
    """One study's data, size and folder."""

    data: Path
    folder: Path
    size_name: str
    threads: int = 2

    @property
    def size(self) -> Size:
        """Return how large the study is."""
        return SIZES[self.size_name]

    @property
    def corpus(self) -> Path:
        """Passages."""
        return self.folder / "corpus.jsonl"

    @property
    def facts(self) -> Path:
        """Facts that are evaluated."""
        return self.folder / "facts.jsonl"

    @property
    def task(self) -> Path:
        """Facts whose queries make the task's curvature."""
        return self.folder / "task.jsonl"

    @property
    def otherwise(self) -> Path:
        """Facts asked by the relation's second prompt, which their rows do not use."""
        return self.folder / "asked_otherwise.jsonl"

    @property
    def lake(self) -> Path:
        """The lake."""
        return self.folder / "lake"

    @property
    def vectors(self) -> Path:
        """Folder of encodings in float32."""
        return self.folder / "vectors"

    def model(self, name: str) -> Path:
        """Folder of a checkpoint."""
        return self.folder / "models" / name

    def evaluation(self, model: str) -> Path:
        """Folder of the project's own evaluation of a checkpoint."""
        return self.folder / "evaluations" / model

    def found(self, name: str) -> Path:
        """File with what a step found."""
        return self.folder / "found" / f"{name}.json"

    def size_of_folder(self) -> str:
        """Return the size of the study that the folder has, from now on this one's where it has none."""
        path = self.folder / "size"
        if not path.exists():
            path.write_text(self.size_name)
        return path.read_text()

    def done(self, step: str) -> Path:
        """Return the file that says that a step is done."""
        return self.folder / "done" / step

    def is_current(self, path: Path, model: str) -> bool:
        """Whether a file is there and newer than a checkpoint."""
        weights = self.model(model) / "model.safetensors"
        return path.exists() and path.stat().st_mtime > weights.stat().st_mtime

    def write(self, name: str, found: Any) -> None:
        """Keep what a step found."""
        self.found(name).parent.mkdir(exist_ok=True)
        self.found(name).write_text(json.dumps(found, indent=1, default=str), "utf-8")

    def read(self, name: str) -> Any:
        """Return what a step found."""
        return json.loads(self.found(name).read_text("utf-8"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

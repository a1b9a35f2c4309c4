"""A plan as somebody asks for it: of a lake, a checkpoint or a size, on a machine of the table or this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proponent.schema.errors import NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings

from . import costs
from .calibrate import calibrate
from .machines import HERE, Machine, machine, storage
from .shape import config_of_size, read_config, shape_of_config
from .workload import Workload

_TEXTS = """
SELECT count(*) AS texts, sum(n_tokens)::BIGINT AS tokens, count(n_tokens) AS counted,
       sum(strlen(text))::BIGINT AS bytes
FROM (SELECT any_value(n_tokens) AS n_tokens, any_value(text) AS text FROM passages GROUP BY text_hash)
"""
_PASSAGE_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a plan is asked of; `encoder` and `workload` are fields of EncoderSettings and Workload."""

    lake: Path | None = None
    model: str | None = None
    parameters: int | None = None
    tokens: int | None = None
    passage_tokens: int | None = None
    encoder: Mapping[str, Any]
    workload: Mapping[str, Any]
    machine: str = HERE
    devices: int = 1
    use: float | None = None
    price: float | None = None
    machines: Path | None = None

    def plan(self, *, tell: Callable[[str], object] = lambda _step: None) -> tuple[list[costs.Line], str]:
        """Return the plan's lines, and in a sentence what it is of.

        Raises SettingsError for what is missing or contradicts itself, NotFoundError for a lake without texts,
        ModelError for a checkpoint that cannot be read.
        """
        config, corpus = self._of_lake() if self.lake else self._of_options()
        shape = shape_of_config(config)
        settings = EncoderSettings(**self.encoder).of_layers(shape.layers)
        work = Workload(shape=shape, settings=settings, **corpus, **self.workload)
        doing = self._machine(config, work, tell)
        lines = costs.plan(work, doing, storage(self.machines), devices=self.devices)
        return lines, self._told(work, doing)

    def _of_options(self) -> tuple[Any, dict[str, Any]]:
        if (self.model is None) == (self.parameters is None):
            raise SettingsError("say how large the model is, with --model FOLDER or --parameters 8B, or name a lake")
        if self.tokens is None:
            raise SettingsError("say how many tokens will be encoded, with --tokens 1B, or name a lake")
        config = read_config(Path(self.model)) if self.model else config_of_size(self.parameters or 0)
        return config, {"tokens": self.tokens, "passage_tokens": self.passage_tokens or _PASSAGE_TOKENS}

    def _of_lake(self) -> tuple[Any, dict[str, Any]]:
        import proponent

        with proponent.open(self.lake or "") as lake:
            [found] = lake.sql(_TEXTS).to_dicts()
            models = {row["name"]: row for row in lake.sql("SELECT name, path FROM models").to_dicts()}
        if not found["texts"] and self.tokens is None:
            raise NotFoundError(f"{self.lake} has no texts; ingest a corpus first, or say --tokens")
        corpus: dict[str, Any] = {"tokens": self.tokens or self.passage_tokens or _PASSAGE_TOKENS}
        corpus["passage_tokens"] = self.passage_tokens or _PASSAGE_TOKENS
        if found["texts"]:
            known = found["tokens"] if found["counted"] == found["texts"] else found["bytes"] / Workload.token_bytes
            corpus["tokens"] = self.tokens or max(1, round(known))
            corpus["passage_tokens"] = self.passage_tokens or max(1, round(known / found["texts"]))
            corpus["token_bytes"] = found["bytes"] / max(1, known)
        return self._config_of(models), corpus

    def _config_of(self, models: Mapping[str, Mapping[str, Any]]) -> Any:
        if self.parameters is not None:
            return config_of_size(self.parameters)
        if self.model is None and len(models) != 1:
            raise SettingsError(f"name the model with --model; registered: {', '.join(sorted(models)) or 'none'}")
        name = self.model or next(iter(models))
        return read_config(Path(models[name]["path"] if name in models else name))

    def _machine(self, config: Any, work: Workload, tell: Callable[[str], object]) -> Machine:
        if self.machine != HERE:
            found = machine(self.machine, own=self.machines, use=self.use)
            return found if self.price is None else replace(found, price=self.price)
        if self.use is not None:
            raise SettingsError("--use is for machines of the table; this one is measured")
        return calibrate(config, work, price=self.price or 0.0, tell=tell)

    def _told(self, work: Workload, doing: Machine) -> str:
        shape = work.shape
        return (
            f"{shape.parameters:,} parameters, {shape.covered:,} of them seen; {work.passages:,} passages of "
            f"{work.passage_tokens} tokens; d = {work.settings.dim:,} in {work.codes}; {self.devices:,} x "
            f"{doing.name}, which encodes at {doing.encode_flops:.3g} FLOP/s"
            + (" as measured" if doing.name == HERE else " as assumed")
        )

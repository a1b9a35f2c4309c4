"""One evaluation: methods on facts, from the lake to results that people read.

Notable: a method's orders are kept in `results.json` under a hash of everything that decides them, and so are the
tail-patch scores. An evaluation that was cut short, or is done again with one method more, computes what is missing;
metrics, intervals and tests are always computed anew.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from proponent.query.export.files import whole
from proponent.query.session import Session
from proponent.schema.errors import InputError, SettingsError
from proponent.schema.ids import content_id
from proponent.schema.settings import TAIL_PATCH_TOP, EvaluationSettings
from proponent.store.lake import LakeStore
from proponent.store.runs import library_versions
from proponent.store.snapshots import Snapshot

from . import rankings, says, summary, tail
from .cost import measured
from .facts import CHOICE, Fact, facts_hash
from .gold import AllGold, find_gold
from .methods import chosen_methods
from .metrics import METRICS
from .nodes import step_on_nodes
from .rankings import Resolved, Searched
from .retraining import Retraining
from .retraining import comparisons as retraining_comparisons
from .texts import Texts, find_texts, read_texts

FORMAT: Final = "proponent-evaluation/1"
RESULTS: Final = "results.json"
_KEPT: Final = ("key", "cost", "orders")
"""What is computed once for a method."""
_TAIL_MEASURE: Final = "tail-patch, log-probability"
CHANGES: Final = ("log_probability", "probability", "difference")
"""What a step changes; the last for choices alone."""


Tell = Callable[[str, int], Callable[[int], object]]
"""Is told what is done next and how much that is, and returns what is told how much was done."""


class Loader(rankings.Loader, Protocol):
    """Loads encoders, and models to be patched."""

    def patched(self, name: str | None, encoders: Sequence[str]) -> tail.Patched:
        """Return a model by its name; by default that of the encoders, or the only one."""

    def loads_patched(self, model_id: str) -> Callable[[LakeStore], tail.Patched]:
        """Return what loads a model on another machine, where it is sent to."""


def tell_nobody(_stage: str, _total: int) -> Callable[[int], object]:
    """Take no notice of progress."""
    return lambda _n: None


@dataclass(frozen=True)
class _Study:
    """What all steps of one evaluation share."""

    searched: Searched
    gold: AllGold
    loader: Loader
    facts_hash: str
    completed: says.Completed
    encoders: Sequence[str]
    known: Mapping[str, Any]
    """Results of an earlier evaluation in the same folder."""
    output: Path | None
    tell: Tell

    @property
    def of(self) -> str:
        """Hash of the facts and of the texts that are searched."""
        return content_id("evaluated", self.facts_hash, self.searched.texts.digest)

    @property
    def settings(self) -> EvaluationSettings:
        return self.searched.settings

    def patched(self) -> tail.Patched:
        """Return the model that the evaluation is of, loaded."""
        return self.loader.patched(self.settings.tail_patch.model, self.encoders)


def evaluate(
    lake: LakeStore,
    session: Session,
    at: Snapshot,
    facts: Sequence[Fact],
    settings: EvaluationSettings,
    *,
    loader: Loader,
    output: Path | None = None,
    tell: Tell = tell_nobody,
) -> dict[str, Any]:
    """Compare methods on facts at a snapshot; return the results, which `results.json` in the folder `output` has.

    What the folder has of an earlier evaluation of the same texts, facts and settings is taken from there. Raises
    SettingsError for methods that are none, NotFoundError for encoders, curvatures and indexes that are missing,
    EncodingError for a fact that a model cannot read, and InputError for runs that cannot be.
    """
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # before minutes of work end in a folder that cannot be made
    methods = [rankings.resolve(lake, at, spec, loader) for spec in chosen_methods(lake, at, settings.methods)]
    encoders = {one.encoder.name for one in methods if one.encoder is not None}
    texts = find_texts(lake, session, at, encoders=encoders, where=settings.filter)
    named = sorted(encoders)
    completed = says.complete(facts, lambda: loader.patched(settings.tail_patch.model, named))
    facts = completed.facts
    searched = Searched(lake, at, texts, facts, settings, loader)
    advance = tell("looking for what states the facts", 0)
    gold = find_gold(lake, at, facts, texts)
    advance(1)
    study = _Study(searched, gold, loader, facts_hash(facts), completed, named, _read(output), output, tell)
    keys = [
        rankings.key_of(one, searched, facts=study.facts_hash) for one in methods
    ]  # reads what they need, first of all
    kept: list[dict[str, Any]] = []
    for one, key in zip(methods, keys, strict=True):
        kept.append(_ranked(study, one, key))
        _write_unfinished(study, kept, study.known["steps"])
    steps = _patched(study, kept)
    _write_unfinished(study, kept, steps or study.known["steps"])
    results = _results(study, kept, steps, _retrained(study, methods, kept))
    _write(output, results)
    return results


def _ranked(study: _Study, one: Resolved, key: str) -> dict[str, Any]:
    """Return a method's orders and cost, from the earlier results where they are there."""
    searched = study.searched
    known = next((method for method in study.known["methods"] if method["key"] == key), None)
    if known is None:
        advance = study.tell(one.spec.name, len(searched.facts))
        with measured(searched.lake) as cost:
            ranking = rankings.rank(one, searched, advance)
        stored = rankings.stored_bytes(one, searched)
        known = {"key": key, "cost": {**asdict(cost), "bytes_stored": stored}, "orders": ranking._asdict()}
    return {**rankings.describe(one), "of": study.of, **{name: known[name] for name in _KEPT}}


def _set_aside(study: _Study, kept: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the orders of methods that are not asked for now, or not reached yet, on the same facts and texts."""
    done = {method["key"] for method in kept}
    others = [one for one in study.known["methods"] if one["key"] not in done and one["of"] == study.of]
    return [{name: one[name] for name in ("name", "of", *_KEPT)} for one in others]


def _retrained(study: _Study, methods: Sequence[Resolved], kept: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Train models anew, where it is asked for."""
    chosen = study.settings.retraining
    if not chosen.wanted:
        return {"lds": None, "counterfactual": None}
    patched = None if chosen.command is not None else study.patched()
    orders = [method["orders"] for method in kept]
    return Retraining(study.searched, study.gold.of_facts, patched, methods, orders, study.output, study.tell).run()


def _patched(study: _Study, kept: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Measure influence by tail-patches, where it is asked for: mean changes for every fact that was drawn."""
    chosen, searched = study.settings.tail_patch, study.searched
    if not chosen.facts:
        return None
    patched = study.patched()
    optimizer = tail.optimizer_of(chosen, patched)
    places = tail.sampled(searched.facts, chosen.facts, seed=study.settings.seed)
    wanted = {tail.RANDOM: tail.random_texts(places, searched.texts.keys, seed=study.settings.seed)}
    keys = {tail.RANDOM: content_id("random texts", study.settings.seed, searched.texts.digest, study.facts_hash)}
    for method in kept:
        for side in tail.SIDES:
            orders = method["orders"][side]
            name = f"{method['name']}, {side}"
            wanted[name] = {place: orders[place][:TAIL_PATCH_TOP] for place in places}
            keys[name] = method["key"]
    keys = {
        name: content_id("steps", key, name.rpartition(", ")[2], patched.model_id, *map(str, optimizer), *places)
        for name, key in keys.items()
    }
    return _stepped(study, patched, kept, {"how": None, "facts": places, "keys": keys, "values": {}}, wanted)


def _stepped(
    study: _Study,
    patched: tail.Patched,
    kept: Sequence[dict[str, Any]],
    steps: dict[str, Any],
    wanted: Mapping[str, tail.Wanted],
) -> dict[str, Any]:
    """Fill in the mean changes by what was stepped on, which are kept as soon as they are known."""
    before = study.known["steps"] or {"values": {}, "keys": {}, "how": None}
    steps["how"] = before["how"]
    known = {name for name in before["values"] if before["keys"].get(name) == steps["keys"].get(name)}
    steps["values"] = {name: before["values"][name] for name in wanted if name in known}
    missing = {name: of_facts for name, of_facts in wanted.items() if name not in known}
    if not missing:
        return steps
    steps["how"] = tail.how(patched, study.settings.tail_patch)
    for name, changes in _steps(study, patched, missing):
        steps["values"][name] = _by_place(tail.means(changes, wanted[name]))
        _write_unfinished(study, kept, steps)
    steps["values"] = {name: steps["values"][name] for name in wanted}
    return steps


def _steps(
    study: _Study, patched: tail.Patched, wanted: Mapping[str, tail.Wanted]
) -> Iterator[tuple[str, tail.Changes]]:
    """Yield names with what was stepped on for them, from this machine or from the nodes of the lake's cluster."""
    searched, chosen = study.searched, study.settings.tail_patch
    lake, at, facts = searched.lake, searched.at, searched.facts
    if lake.cluster is not None:
        load = study.loader.loads_patched(patched.model_id)
        return step_on_nodes(lake, at, load, facts, chosen, wanted=wanted, tell=study.tell)
    texts = partial(read_texts, lake, at)
    return tail.step_here(patched, facts, chosen, wanted, texts=texts, tell=study.tell)


def _by_place(means: Mapping[int, tail.Means]) -> dict[str, Any]:
    return {str(place): one._asdict() for place, one in means.items()}


def _results(
    study: _Study, kept: Sequence[dict[str, Any]], steps: dict[str, Any] | None, retrained: Mapping[str, Any]
) -> dict[str, Any]:
    searched, settings, gold = study.searched, study.settings, study.gold
    facts, golds = searched.facts, gold.of_facts
    methods = [
        {**method, **summary.one_method(method["orders"]["proponents"], facts, golds, settings)} for method in kept
    ]
    values = {
        method["name"]: summary.by_place(method["ranks"]["strict"], METRICS[summary.COMPARED]) for method in methods
    }
    return {
        "format": FORMAT,
        "lake": str(searched.lake.root),
        "snapshot": searched.at.snapshot_id,
        "versions": library_versions(),
        "settings": asdict(settings),
        "facts": {
            "hash": study.facts_hash,
            "n": len(facts),
            "skipped": dict(gold.skipped),
            "unknown_ids": gold.n_unknown_ids,
            "with_entities": sum(one.has_entities for one in golds),
            "ids": [fact.id for fact in facts],
            "kinds": [fact.kind for fact in facts],
            "completed": study.completed.targets,
            "left_out": study.completed.left_out,
            "prompts": [fact.prompt for fact in facts],
            "targets": [fact.target for fact in facts],
            "relations": [fact.relation for fact in facts],
            "passages": [one.n_passages for one in golds],
        },
        "searched": _searched(searched.texts),
        "methods": methods,
        "set_aside": _set_aside(study, kept),
        "comparisons": [
            *summary.compare(values, settings, measure=summary.COMPARED),
            *_step_comparisons(study, steps),
            *retraining_comparisons(retrained["lds"], retrained["counterfactual"], settings),
        ],
        "answers": _answers(study),
        "influence": _influence(study, steps),
        "influence_by_kind": _influence_by_kind(study, steps),
        **retrained,
        "steps": steps or study.known["steps"],
    }


def _searched(texts: Texts) -> dict[str, Any]:
    return {"passages": len(texts.passage_ids), "texts": len(texts.keys), "hash": texts.digest}


def _answers(study: _Study) -> dict[str, Any] | None:
    """Return what the model says itself, where a model takes part in the evaluation."""
    facts = study.searched.facts
    if not study.settings.tail_patch.facts and all(fact.kind != CHOICE for fact in facts):
        return None
    return says.answers(study.patched(), facts, study.settings)


def _influence(study: _Study, steps: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return mean tail-patch scores with their intervals, by what was stepped on; None for what lists nothing."""
    if steps is None:
        return None
    return {name: _mean_changes(study, of_facts.values()) for name, of_facts in steps["values"].items()}


def _influence_by_kind(study: _Study, steps: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the same by the kind of what is asked; None where all is of one kind that has no measure of its own."""
    facts = study.searched.facts
    if steps is None or {fact.kind for fact in facts} <= {facts[0].kind} - {CHOICE}:
        return None
    found: dict[str, Any] = {}
    for name, of_facts in steps["values"].items():
        kinds = dict.fromkeys(facts[place].kind for place in steps["facts"])
        found[name] = {
            kind: _mean_changes(study, [one for at, one in of_facts.items() if facts[int(at)].kind == kind])
            for kind in kinds
        }
    return found


def _mean_changes(study: _Study, of_facts: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        change: summary.of_values([one[change] for one in of_facts if one[change] is not None], study.settings)
        for change in CHANGES
    }


def _step_comparisons(study: _Study, steps: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Compare methods, and random passages, by what their first passages do to the targets."""
    if steps is None:
        return []
    values = {
        name.removesuffix(f", {tail.SIDES[0]}"): {int(place): one["log_probability"] for place, one in found.items()}
        for name, found in steps["values"].items()
        if found and not name.endswith(tail.SIDES[1])
    }
    return summary.compare(values, study.settings, measure=_TAIL_MEASURE)


def _read(output: Path | None) -> dict[str, Any]:
    """Return what a folder has of an earlier evaluation. Raises InputError for a file that is none."""
    empty: dict[str, Any] = {"methods": [], "steps": None}
    if output is None or not (output / RESULTS).exists():
        return empty
    path = output / RESULTS
    try:
        known = json.loads(path.read_text("utf-8"))
        if known["format"] != FORMAT:
            raise SettingsError(f"{path} is of another version, {known['format']}; name another folder")
        return {"methods": known["methods"] + known["set_aside"], "steps": known["steps"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise InputError(f"{path} is no evaluation; name another folder, or remove the file") from error


def _write_unfinished(study: _Study, kept: Sequence[Mapping[str, Any]], steps: Mapping[str, Any] | None) -> None:
    """Keep what was computed so far, for an evaluation that takes up what this one leaves."""
    so_far = {"methods": kept, "set_aside": _set_aside(study, kept), "steps": steps}
    _write(study.output, {"format": FORMAT, **so_far})


def _write(output: Path | None, results: Mapping[str, Any]) -> None:
    """Write `results.json`, whole or not at all."""
    if output is None:
        return
    with whole(output / RESULTS) as partial:
        partial.write_text(json.dumps(results, separators=(",", ":")), "utf-8")

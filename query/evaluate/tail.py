"""Influence: mean tail-patch scores of what a method lists, of its opponents, and of passages drawn at random.

Notable: a step on a passage serves every fact that it is wanted for, and every method, so that it is taken once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.gradients import Example
from proponent.encode.moments import Moments
from proponent.encode.tail_patch import ADAM, DEFAULT_LR, SGD, Change, TailPatch
from proponent.encode.tokens import passage_examples, query_example
from proponent.schema.errors import EncodingError, SettingsError
from proponent.schema.settings import TAIL_PATCH_TOP, TailPatchSettings

from .facts import ASKED, Fact

RANDOM: Final = "random passages"
SIDES: Final = ("proponents", "opponents")

Wanted = Mapping[int, Sequence[str]]
"""Text hashes that are stepped on for a fact, by the fact's place."""


class Patched(NamedTuple):
    """A model to be patched, with the second moments that its training left."""

    model_id: str
    name: str
    checkpoint: Checkpoint
    moments: Moments | None
    """None where the model was registered without an optimizer state."""


class Pushed(NamedTuple):
    """What a step did to a fact."""

    log_probability: float
    """Change of the target's summed log-probability, in nats."""
    probability: float
    difference: float | None = None
    """That change less the one of the alternative that the model found likeliest before; None without choices."""


class Means(NamedTuple):
    """Mean changes of one fact over the passages that were stepped on for it."""

    log_probability: float
    probability: float
    n: int
    difference: float | None = None


Changes = dict[tuple[int, str], Pushed]
"""What steps did, by fact and text."""


def optimizer_of(settings: TailPatchSettings, patched: Patched) -> tuple[str, float]:
    """Return the optimizer and the learning rate. Raises SettingsError for Adam without an optimizer state."""
    chosen = settings.optimizer
    if chosen == "auto":
        chosen = ADAM if patched.moments is not None else SGD
    if chosen == ADAM and patched.moments is None:
        raise SettingsError(
            f"model {patched.name!r} was registered without an optimizer state, which a step of Adam needs; use sgd, "
            "or register the state with `proponent model add --moments FILE`"
        )
    return chosen, settings.lr if settings.lr is not None else DEFAULT_LR[chosen]


def sampled(facts: Sequence[Fact], wanted: int, *, seed: int) -> list[int]:
    """Return the places of facts drawn at random, ascending: so many of each kind, or all where there are fewer."""
    drawn: list[int] = []
    for which, kind in enumerate(ASKED):
        of_kind = [place for place, fact in enumerate(facts) if fact.kind == kind]
        if of_kind:
            draw = np.random.default_rng([seed, len(of_kind), *([which] if which else [])])
            drawn += [of_kind[one] for one in draw.choice(len(of_kind), min(wanted, len(of_kind)), replace=False)]
    return sorted(drawn)


def random_texts(places: Sequence[int], keys: Sequence[str], *, seed: int) -> dict[int, list[str]]:
    """Draw texts for each fact on its own."""
    n = min(TAIL_PATCH_TOP, len(keys))
    draws = {
        place: np.random.default_rng([seed, place, 1]).choice(len(keys), size=n, replace=False) for place in places
    }
    return {place: [keys[which] for which in drawn] for place, drawn in draws.items()}


@dataclass(frozen=True)
class Patching:
    """Takes steps, as long as the context lasts that `patching` made it in."""

    stepping: TailPatch
    patched: Patched
    facts: Sequence[Fact]

    def changes(
        self, wanted: Wanted, texts: Callable[[Sequence[str]], Mapping[str, str]], progress: Callable[[int], object]
    ) -> Changes:
        """Step on every wanted text once; return what that does.

        Texts beyond the model's context are cut there. Raises EncodingError for a fact whose target it cannot read.
        """
        context, tokenizer = self.patched.checkpoint.facts.context_length, self.patched.checkpoint.tokenizer
        asked = {place: self._asked(place) for place in wanted}
        of_text: dict[str, list[int]] = defaultdict(list)
        for place, keys in wanted.items():
            for key in dict.fromkeys(keys):
                of_text[key].append(place)
        found = texts(list(of_text))
        changes: Changes = {}
        for key, places in of_text.items():
            [example] = passage_examples(tokenizer, [found[key]])
            cut = Example(example.token_ids[:context])
            taken = iter(self.stepping.changes(cut, [one for place in places for one in asked[place]]))
            for place in places:
                changes[place, key] = _pushed([next(taken) for _ in asked[place]])
            progress(1)
        return changes

    def _asked(self, place: int) -> list[Example]:
        """Return a fact's target, and of its alternatives the one that the model finds likeliest."""
        context, tokenizer, fact = (
            self.patched.checkpoint.facts.context_length,
            self.patched.checkpoint.tokenizer,
            self.facts[place],
        )
        others = [target_example(tokenizer, fact, context, other) for other in fact.alternatives]
        likeliest = max(others, key=self.stepping.log_probability, default=None)
        target = target_example(tokenizer, fact, context, fact.target)
        return [target] if likeliest is None else [target, likeliest]


def _pushed(changes: Sequence[Change]) -> Pushed:
    target, *other = changes
    return Pushed(*target, target.log_probability - other[0].log_probability if other else None)


def how(patched: Patched, settings: TailPatchSettings) -> dict[str, Any]:
    """Return the optimizer, the learning rate, the share of the parameters that is moved, and the model's name."""
    stepping = _stepping(patched, settings)
    return {
        "optimizer": optimizer_of(settings, patched)[0],
        "lr": stepping.lr,
        "share": stepping.share,
        "model": patched.name,
    }


def _stepping(patched: Patched, settings: TailPatchSettings) -> TailPatch:
    optimizer, lr = optimizer_of(settings, patched)
    return TailPatch(patched.checkpoint.model, lr=lr, moments=patched.moments if optimizer == ADAM else None)


@contextmanager
def patching(patched: Patched, facts: Sequence[Fact], settings: TailPatchSettings) -> Iterator[Patching]:
    """Give what takes steps from a model, whose weights are the same bits afterwards."""
    with _stepping(patched, settings) as stepping:
        yield Patching(stepping, patched, facts)


def step_here(
    patched: Patched,
    facts: Sequence[Fact],
    settings: TailPatchSettings,
    wanted: Mapping[str, Wanted],
    *,
    texts: Callable[[Sequence[str]], Mapping[str, str]],
    tell: Callable[[str, int], Callable[[int], object]],
) -> Iterator[tuple[str, Changes]]:
    """Step on what each name wants; yield it with the changes so far as soon as it has all of its own.

    Raises as `Patching.changes`.
    """
    changes: Changes = {}
    with patching(patched, facts, settings) as taking:
        for name, of_facts in wanted.items():
            new = {place: [key for key in keys if (place, key) not in changes] for place, keys in of_facts.items()}
            progress = tell(f"tail-patch, {name}", len({key for keys in new.values() for key in keys}))
            changes |= taking.changes(new, texts, progress)
            yield name, changes


def target_example(tokenizer: Any, fact: Fact, context: int, target: str) -> Example:
    """Return a target of a fact, or one of its alternatives. Raises EncodingError, which names the fact."""
    try:
        return query_example(tokenizer, fact.prompt, target, context_length=context)
    except EncodingError as error:
        raise EncodingError(f"{fact.origin}: {error}") from error


def means(changes: Mapping[tuple[int, str], Pushed], wanted: Wanted) -> dict[int, Means]:
    """Return the mean over each fact's texts, of facts that have any."""
    found = {}
    for place, keys in wanted.items():
        these = [changes[place, key] for key in keys]
        if these:
            log_probability, probability = (float(np.mean([one[which] for one in these])) for which in (0, 1))
            differences = [one.difference for one in these if one.difference is not None]
            difference = float(np.mean(differences)) if differences else None
            found[place] = Means(log_probability, probability, len(these), difference)
    return found

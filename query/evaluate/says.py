"""What the model itself says: how prompts without a target go on, and whether it is right where there is one."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from proponent.encode.tail_patch import token_losses
from proponent.encode.tokens import completion
from proponent.schema.errors import EncodingError, InputError
from proponent.schema.settings import EvaluationSettings

from . import summary
from .facts import ASKED, GENERATION, Fact
from .tail import Patched, target_example


class Completed(NamedTuple):
    """Facts that all have a target."""

    facts: list[Fact]
    targets: dict[str, str]
    """What the model said, by the id of the fact that had no target."""
    left_out: dict[str, int]
    """How many prompts the model could not complete, by the reason."""


def complete(facts: Sequence[Fact], patched: Callable[[], Patched]) -> Completed:
    """Let the model complete the prompts without a target; leave out those that it completes with nothing.

    The model is loaded only where there are such prompts. Raises InputError where nothing is left.
    """
    if all(fact.target for fact in facts):
        return Completed(list(facts), {}, {})
    loaded = patched().checkpoint
    kept, targets, left_out = [], {}, Counter[str]()
    for fact in facts:
        if not fact.target:
            try:
                said = completion(
                    loaded.model, loaded.tokenizer, fact.prompt, context_length=loaded.facts.context_length
                )
            except EncodingError as error:
                left_out[str(error).partition(";")[0]] += 1
                continue
            targets[fact.id] = said
            kept.append(replace(fact, target=said))
        else:
            kept.append(fact)
    if not kept:
        raise InputError(f"the model completes none of the {len(facts)} prompts: {left_out.most_common(1)[0][0]}")
    return Completed(kept, targets, dict(left_out))


def answers(patched: Patched, facts: Sequence[Fact], settings: EvaluationSettings) -> dict[str, Any]:
    """Return how likely the model finds each target and whether it is right, and both by kind, as the results keep it.

    It is right about a choice when no other completion is likelier, by the summed log-probability of its tokens; about
    anything else when all tokens of the target are the likeliest ones, so that it says just that by itself. About how a
    text goes on nobody is right. Raises EncodingError for a fact that it cannot read.
    """
    found = [_answer(patched, fact) for fact in facts]
    likely, right = [one for one, _ in found], [one for _, one in found]
    by_kind: dict[str, Mapping[str, Any]] = {}
    for kind in ASKED:
        places = [place for place, fact in enumerate(facts) if fact.kind == kind]
        if places:
            by_kind[kind] = {
                "right": summary.of_values([float(right[place]) for place in places if kind != GENERATION], settings),
                "log_probability": summary.of_values([likely[place] for place in places], settings),
            }
    return {"model": patched.name, "log_probability": likely, "right": right, "by_kind": by_kind}


def _answer(patched: Patched, fact: Fact) -> tuple[float, bool]:
    import torch

    loaded, likely, said = patched.checkpoint, [], []
    for text in (fact.target, *fact.alternatives):
        example = target_example(loaded.tokenizer, fact, loaded.facts.context_length, text)
        with torch.no_grad():
            losses, likeliest = token_losses(loaded.model, example)
        likely.append(-float(losses.double().sum()))
        said.append(bool(likeliest.all()))
    return likely[0], likely[0] == max(likely) if fact.choices else said[0]

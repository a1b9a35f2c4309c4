"""What models that were trained anew say of the methods, as people read it."""

from collections.abc import Mapping
from typing import Any, Final

from proponent.query.report.numbers import count

from .sections import Section, drawn_mean, interval_charts, mean_cell
from .tail import RANDOM

_MOST_ANSWERS: Final = 20
"""Facts of which each is told on its own."""
_NONE: Final = Section("", "", [])


def _how(how: Mapping[str, Any]) -> str:
    """Return how models were trained, as the end of a sentence."""
    if "command" in how:
        return f"by {how['command']}"
    training = how["training"]
    return (
        f"from nothing with the architecture of {how['model']} ({count(training['epochs'], 'epoch')}, "
        f"{count(training['batch_size'], 'text')} a step, learning rate {training['learning_rate']:g})"
    )


def lds(found: Mapping[str, Any] | None) -> Section:
    """Return the section of the linear datamodelling score."""
    if found is None:
        return _NONE
    how, n_seeds = found["how"], len(found["how"]["seeds"])
    rows = [
        {"method": name, "facts": f"{mean['n']:,}", "LDS": mean_cell(mean)} for name, mean in found["methods"].items()
    ]
    rows += [{"method": name, "facts": "", "LDS": f"left out: {reason}"} for name, reason in found["left_out"].items()]
    means = [drawn_mean(name, mean) for name, mean in found["methods"].items()]
    for name, mean in (("(stating texts alone)", found["stating_texts"]), ("(two seeds)", found["between_seeds"])):
        if mean is not None:
            rows.append({"method": name, "facts": f"{mean['n']:,}", "LDS": mean_cell(mean)})
            means.append(drawn_mean(name, mean))
    return Section(
        "Retraining: linear datamodelling score",
        f"Mean over the facts of the rank correlation, over {how['subsets']:,} random subsets of "
        f"{count(how['texts'], 'text')}, between the sum of a method's scores and the target's log-probability in "
        f"{'a model' if n_seeds == 1 else f'the mean of {n_seeds} models'} trained on the subset, {_how(how)}."
        " In brackets: what counts the subset's texts that are said to state the fact, and the outputs of one seed "
        "against those of another.",
        rows,
        interval_charts(means, ident="lds", title="Linear datamodelling score"),
    )


def counterfactual(found: Mapping[str, Any] | None) -> Section:
    """Return the section of what leaving out the first texts changes, over all facts that were drawn."""
    if found is None:
        return _NONE
    how = found["how"]
    rows = [
        {
            "left out": name,
            "facts": f"{means['log_probability']['n']:,}",
            "log-probability": mean_cell(means["log_probability"]),
            "no longer said": mean_cell(means["flips"], 2),
        }
        for name, means in found["means"].items()
    ]
    means = [drawn_mean(name, one["log_probability"]) for name, one in found["means"].items()]
    return Section(
        "Retraining: what is left out",
        f"Change of the target's log-probability, in nats, when a model is trained without the first "
        f"{count(how['without'], 'text')} that a method lists, or without as many random ones "
        f"({count(how['draws'], 'draw')}, the same for all facts), {count(len(how['seeds']), 'seed')}, {_how(how)}. "
        "no longer said: share of the answers that the model trained on all texts says by itself, and the other not.",
        rows,
        interval_charts(means, ident="left-out", title="Change of the target's log-probability"),
    )


def single_answers(results: Mapping[str, Any]) -> Section:
    """Return the section of single facts; of the first where there are many."""
    found = results["counterfactual"]
    if found is None:
        return _NONE
    asked, ids = found["facts"][:_MOST_ANSWERS], results["facts"]["ids"]
    names = sorted(found["answers"], key=lambda name: name != RANDOM)
    rows = []
    for place in asked:
        for name in names:
            one = found["answers"][name].get(str(place))
            if one is not None:
                said = f"{sum(one['flips'])} of {len(one['flips'])}" if one["flips"] else "not said before"
                changes = one["log_probability"]
                rows.append(
                    {
                        "fact": ids[place],
                        "left out": name,
                        "models": f"{changes['n']:,}",
                        "log-probability": mean_cell(changes),
                        "no longer said": said,
                    }
                )
    more = len(found["facts"]) - len(asked)
    return Section(
        "Retraining: single answers",
        "Intervals over the models of a fact, which differ in seed and, for random texts, in the draw."
        + (f" {count(more, 'more fact')} in results.json." if more > 0 else ""),
        rows,
    )

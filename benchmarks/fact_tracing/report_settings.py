"""Sections of the report: what each part of the method is worth, what would be better, and bergson beside it."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from ablate import PARTS_OF_MORE
from found import Found
from measure import best_peer
from ranking import MEASURES, OWN, REPORT, SENTENCES, TUNE, best_of, compared
from tables import against, difference, judged, means_of, table
from vectors import FORMER

_OTHERWISE: Final = "asked in other words"
"""A family that is no choice."""


def parts(study: Found) -> list[str]:
    """Tell what parts of the method reach together."""
    return [
        "In memory, float32, all facts.",
        table(means_of(study.ablated["parts"], study.every, resamples=study.resamples)),
        "With two projections, d twice as large:",
        table(means_of(study.ablated[PARTS_OF_MORE], study.every, resamples=study.resamples)),
    ]


def families(study: Found) -> list[str]:
    """Tell what one setting that differs from the default is worth."""
    sections: list[str] = [
        "Differences to the default (V by rows and columns, Ledoit-Wolf, unit length, no task) on all facts."
    ]
    for family, named in (*study.ablated.items(), ("whole gradients", study.exact)):
        if not family.startswith("parts"):
            sections += [f"### {family.capitalize()}", table(against(named, study.default, study.every))]
    return sections


def chosen(study: Found) -> list[str]:
    """Tell what is chosen on one half of the relations, and what it is worth on the other."""
    tune, report = study.judge.half(TUNE), study.judge.half(REPORT)
    rows = []
    for family, named in (*study.ablated.items(), ("whole gradients", study.exact)):
        if family == _OTHERWISE:
            continue
        for measure in MEASURES:
            name = best_of(named, measure, tune)
            found = compared(named[name], study.default, measure, report)
            rows.append(
                {
                    "family": family,
                    "chosen for": measure,
                    "setting": name,
                    "less the default, tuned on": difference(
                        compared(named[name], study.default, measure, tune), measure
                    ),
                    "less the default, held out": difference(found, measure),
                }
            )
    return [table(rows)]


def peer(study: Found) -> list[str]:
    """Tell what bergson reached and took, and the project beside it."""
    if not study.peers or len(study.peers) == 1:
        return ["bergson was not run to its end: `PROPONENT_BERGSON` names no Python that has it, or it was stopped."]
    named = {name: one for name, one in study.peers.items() if "values" in one}
    rows = means_of({name: one["values"] for name, one in named.items()}, study.every, resamples=study.resamples)
    for row, one in zip(rows, named.values(), strict=True):
        row |= {"d": f"{one['d']:,}", "s": f"{one['wall']:.0f}", "CPU s": f"{one['seconds']:.0f}"}
        row["index, MB"] = f"{one['index_bytes'] / 1e6:.1f}" if "index_bytes" in one else "stopped"
    chosen, sizes = best_peer(study.work), study.ablated["size"]
    ours = {"default": study.default} | {
        name: values for name, values in sizes.items() if name.startswith((FORMER, "two projections, d"))
    }
    versus = {
        f"{name}, less bergson's {other}": (values, named[other]["values"])
        for other in dict.fromkeys(("defaults", _fairest(named), chosen))
        if other in named
        for name, values in ours.items()
    }
    own = [
        {
            "encoder": name,
            "d": f"{cost['d']:,}",
            "s": f"{cost['wall']:.0f}",
            "fitting R, CPU s": f"{cost['fit']:.0f}",
            "encoding and scoring, CPU s": f"{cost['encode']:.0f}",
            "codes, MB": f"{cost['bytes'] / 1e6:.1f}",
        }
        for name, cost in study.peers["own"].items()
    ]
    return [
        f"bergson 2.5.1 on the same token ids, by its own two passes over the passages, one process on "
        f"{study.train['device']}; seconds of a process that had the machine for itself where steps ran one at a time.",
        table(rows),
        "proponent in memory, from a loaded model to all scores, on the same machine:",
        table(own),
        f"bergson's best setting by the half that is tuned on is {chosen}. In memory, all facts:",
        table(judged(versus, study.every, first="TrackStar")),
        "The same on the held-out half:",
        table(judged(versus, study.judge.half(REPORT), first="TrackStar")),
    ]


def _fairest(named: Mapping[str, Any]) -> str:
    """Return bergson's best setting, by own rows and sentences, of those with the fewest components."""
    least = min(one["d"] for one in named.values())

    def mean_of(name: str) -> float:
        values = named[name]["values"]
        return float(sum(np.mean([one for one in values[measure] if one is not None]) for measure in (OWN, SENTENCES)))

    return max((name for name in named if named[name]["d"] == least), key=mean_of)

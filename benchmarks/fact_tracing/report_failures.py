"""The section of the report that tells where the method fails, and its examples with the passages' texts."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from found import TRACKSTAR, Found
from ranking import SENTENCES, kinds_of
from tables import table
from work import MAIN

_EXAMPLES: Final = 8
_SHOWN: Final = 3


def failures(study: Found) -> list[str]:
    """Tell what stands at which rank, and facts that one method finds and another does not."""
    parts = [_kinds(study)]
    for title, facts in _failing(study):
        rows = [_example(study, fact, study.lists[MAIN][TRACKSTAR][fact]) for fact in facts]
        parts += [f"### {title}", table(rows) if rows else "None."]
    return parts


def quoted(study: Found) -> str:
    """Return the same facts with the passages' texts, which stay in the work folder."""
    lines = ["# Facts and what TrackStar lists for them"]
    for fact in (one for _, facts in _failing(study) for one in facts):
        asked = study.judge.facts[fact]
        lines.append(f"\n## {asked['prompt']}{asked['target']}\n")
        lines += [f"- stated: {study.corpus[one]['text']}" for one in study.judge.sentences[fact]]
        listed = study.lists[MAIN][TRACKSTAR][fact][:10]
        lines += [f"- {rank}. {study.corpus[one]['text']}" for rank, one in enumerate(listed, 1)]
    return "\n".join(lines) + "\n"


def _failing(study: Found) -> list[tuple[str, list[int]]]:
    """Return facts whose sentences TrackStar ranks low and BM25 first, and the other way round."""
    ours, words = study.values[MAIN][TRACKSTAR][SENTENCES], study.values[MAIN]["bm25"][SENTENCES]
    both = [
        (a - b, fact) for fact, (a, b) in enumerate(zip(ours, words, strict=True)) if a is not None and b is not None
    ]
    order = [both[place] for place in np.random.default_rng(0).permutation(len(both))]  # of equal gaps, any
    order.sort(key=lambda one: one[0])
    return [
        ("BM25 finds it, TrackStar does not", [fact for gap, fact in order[:_EXAMPLES] if gap < 0]),
        ("TrackStar has it before BM25", [fact for gap, fact in order[::-1][:_EXAMPLES] if gap > 0]),
    ]


def _kinds(study: Found) -> str:
    rows = []
    for method in (TRACKSTAR, "main:trackstar@task", "main_none:graddot", "bm25"):
        for rank in (1, 2, 5, 10):
            counts = Counter(
                kinds_of(study.judge.facts[fact], study.corpus[listed[rank - 1]])
                for fact, listed in enumerate(study.lists[MAIN][method])
                if len(listed) >= rank
            )
            rows.append(
                {"method": method, "rank": str(rank)} | {k: f"{n / counts.total():.1%}" for k, n in counts.items()}
            )
    names = sorted({name for row in rows for name in row} - {"method", "rank"})
    return "What stands at a rank:\n\n" + table(
        [{**dict.fromkeys(("method", "rank", *names), ""), **row} for row in rows]
    )


def _example(study: Found, fact: int, listed: Sequence[int]) -> dict[str, str]:
    """Return a fact and what is listed for it, in words that quote no passage."""
    asked, gold = study.judge.facts[fact], study.judge.sentences[fact]
    rank = next((place for place, one in enumerate(listed, start=1) if one in gold), None)
    return {
        "fact": f"{asked['subject']}, {asked['relation']}: {asked['object']}",
        "row": "yes" if study.judge.own[fact] >= 0 else "",
        "completed": "rightly" if study.train["models"][MAIN]["completes"][fact] else "wrongly",
        "sentence at": str(rank or "> 100"),
        "stating sentences": str(len(gold)),
        "sentence names": "; ".join(kinds_of({**asked, "doc_keys": []}, study.corpus[one]) for one in gold[:_SHOWN]),
        "TrackStar's first": "; ".join(kinds_of(asked, study.corpus[one]) for one in listed[:_SHOWN]),
    }

"""Write `results.md`: every table of the study, from what the steps found. No number in it is typed by hand.

Passages are quoted in `examples.md` alone, which stays in the work folder: their texts are other people's.
"""

from found import Found
from report_failures import failures, quoted
from report_methods import claims, methods, setting, splits, stages
from report_settings import chosen, families, parts, peer
from work import Work

_SECTIONS = {
    "What was studied": setting,
    "What was expected, and what was found": claims,
    "All methods": methods,
    "By kind of fact": splits,
    "Sizes and stages of training": stages,
    "Parts of the method": parts,
    "Settings, one at a time": families,
    "Chosen on one half, reported on the other": chosen,
    "bergson": peer,
    "Where it fails": failures,
}


def run(work: Work) -> None:
    """Write the report into the work folder."""
    study = Found(work)
    told = [
        "# Results of the study of fact tracing",
        f"Made by `benchmarks/fact_tracing/run.py --size {work.size_name}`; [README.md](README.md) says what is "
        "measured and what it comes to. Brackets are 95 % intervals over facts (bootstrap); p-values are of paired "
        "tests that flip signs, corrected by Holm within a table's column. Tail-patch: thousandths of a nat of the "
        "target's log-probability, mean of the first ten passages.",
    ]
    for title, section in _SECTIONS.items():
        told += [f"## {title}", *section(study)]
    (work.folder / "examples.md").write_text(quoted(study), "utf-8")
    (work.folder / "results.md").write_text("\n\n".join(part.strip() for part in told) + "\n", "utf-8")
    print(work.folder / "results.md")

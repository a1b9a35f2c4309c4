"""Write `methods.md`: the comparison of all methods on the studied model, which needs no more of the study."""

from found import Found
from report_methods import differences, methods
from work import Work


def run(work: Work) -> None:
    """Write the tables into the work folder."""
    study = Found(work)
    told = ["# All methods", *methods(study), *differences(study)]
    (work.folder / "methods.md").write_text("\n\n".join(part.strip() for part in told) + "\n", "utf-8")
    print(work.folder / "methods.md")

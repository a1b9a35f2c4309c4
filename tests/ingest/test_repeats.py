"""Ids that came before are found whatever the units are, as somebody would who reads all rows one after the other."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.ingest import repeats
from proponent.ingest.repeats import (
    DUPLICATE,
    REPEATED,
    IdsWriter,
    find_repeats,
    ids_path,
    read_verdicts,
    replaced_documents,
)

UNITS = st.lists(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("xyz")), max_size=6), min_size=1, max_size=5
)
Rows = list[tuple[str, str]]


def write(folder: Path, units: list[Rows], fates: list[list[str]]) -> None:
    for unit, rows in enumerate(units):
        with IdsWriter(folder, unit) as ids:
            for (doc_id, content), fate in zip(rows, fates[unit], strict=True):
                ids.add([doc_id], [content], [fate])
            ids.finish()


def expected_fates(units: list[Rows]) -> list[list[str]]:
    """What becomes of every row: documents that begin with a vowel were withdrawn."""
    first: dict[str, str] = {}
    fates = []
    for rows in units:
        fates.append([])
        for doc_id, content in rows:
            if doc_id in "ae":
                fates[-1].append("withdrawn")
            elif doc_id not in first:
                first[doc_id] = content
                fates[-1].append("added")
            else:
                fates[-1].append(DUPLICATE if first[doc_id] == content else REPEATED)
    return fates


@given(UNITS)
def test_verdicts_are_those_of_somebody_who_reads_everything(units: list[Rows]) -> None:
    naive = [["withdrawn" if doc_id in "ae" else "added" for doc_id, _ in rows] for rows in units]
    expected = expected_fates(units)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, units, naive)
        again = find_repeats(folder, units=len(units))
        assert again == [unit for unit in range(len(units)) if naive[unit] != expected[unit]]
        for unit in again:
            verdicts = read_verdicts(folder, unit)
            told = dict(verdicts.between(0, len(naive[unit])))
            found = [told.get(place, fate) for place, fate in enumerate(naive[unit])]
            assert found == expected[unit]
        write(folder, units, expected)
        assert find_repeats(folder, units=len(units)) == [], "a unit that knows is not done again"


def test_long_lists_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_ROWS_AT_ONCE", 7)
    units = [[(f"d{n}", "x") for n in range(50)], [(f"d{n}", "y" if n % 3 else "x") for n in range(40, 100)]]
    write(tmp_path, units, [["updated"] * 50, ["added"] * 60])
    assert find_repeats(tmp_path, units=2) == [1]
    verdicts = read_verdicts(tmp_path, 1)
    expected = [(n - 40, REPEATED if n % 3 else DUPLICATE) for n in range(40, 50)]
    assert [*verdicts.between(0, 4), *verdicts.between(4, 60)] == expected
    assert list(replaced_documents(tmp_path, units=2)) == [f"d{n}" for n in range(50)]


def test_a_list_that_was_cut_short_is_not_there(tmp_path: Path) -> None:
    def stopped() -> None:
        with IdsWriter(tmp_path, 0) as ids:
            ids.add(["a"], ["x"], ["added"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not ids_path(tmp_path, 0).exists()
    assert not list(ids_path(tmp_path, 0).parent.iterdir())

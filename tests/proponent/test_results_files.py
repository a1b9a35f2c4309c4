"""Files of results without a lake: what they list is shown as they list it, and broken ones are refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proponent.lake import open as open_lake
from proponent.results_files import open_results
from proponent.schema.errors import InputError

RECORD: dict[str, Any] = {
    "example_id": 7,
    "query_set": "facts",
    "inputs_plaintext": "Peru. Capital:",
    "targets_plaintext": " Lima",
    "proponents": ["Peru. Capital: Lima", "Lima lies by the sea."],
    "proponent_ids": ["a", "b"],
    "proponent_scores": [2.5, 1],
    "opponents": ["Oslo lies by the sea."],
    "opponent_ids": ["c"],
    "opponent_scores": [-1],
    "relation": "capital",
}
HITS = "SELECT method, side, rank, score, text FROM influence ORDER BY method, side DESC, rank"


def written(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def shown(*files: Path) -> list[tuple[Any, ...]]:
    with open_results(files, tell=str) as lake:
        return [tuple(row.values()) for row in lake.sql(HITS).to_dicts()]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., str]:
    """Return what is said of a file that is of no use."""

    def said(content: bytes | str) -> str:
        file = tmp_path / "broken.jsonl"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError) as caught, open_results([file], tell=str):
            pass
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return said


def test_files_lie_side_by_side_with_what_all_of_them_say_is_right(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", RECORD | {"proponent_correct": [True, False]})
    other = {"proponents": ["More of Lima."], "proponent_ids": ["d"], "proponent_scores": [9], "opponent_scores": []}
    two = written(tmp_path / "two é.jsonl", {**RECORD, **other, "opponents": [], "opponent_ids": []})
    with open_results([one, two], tell=str) as lake:
        root = lake.store.root
        rows = [tuple(row.values()) for row in lake.sql(HITS).to_dicts()]
        [query] = lake.sql("SELECT query_set, metadata FROM queries").to_dicts()
        [right] = lake.sql("SELECT passage_id FROM influence WHERE text = 'Peru. Capital: Lima'").to_dicts()
    assert rows == [
        ("imported:one", "proponent", 1, 2.5, "Peru. Capital: Lima"),
        ("imported:one", "proponent", 2, 1.0, "Lima lies by the sea."),
        ("imported:one", "opponent", 1, -1.0, "Oslo lies by the sea."),
        ("imported:two", "proponent", 1, 9.0, "More of Lima."),
    ]
    assert query["query_set"] == "facts"
    assert json.loads(query["metadata"]) == {
        "example_id": 7,
        "relation": "capital",
        "passage_ids": [right["passage_id"]],
    }
    assert not root.parent.exists()


@pytest.mark.parametrize("name", ["corpus.jsonl", "0.jsonl", "lake"])
def test_a_file_may_be_called_as_files_here_are(tmp_path: Path, name: str) -> None:
    assert len(shown(written(tmp_path / name, RECORD))) > 0


def test_whatever_texts_and_ids_there_are_is_shown(tmp_path: Path) -> None:
    sides = {"opponents": [], "opponent_ids": [], "opponent_scores": []}
    odd = [
        {"method": "same text", "proponents": ["x", "x"], "proponent_ids": None},
        {"method": "one id", "proponents": ["x", "y"], "proponent_ids": ["i", "i"]},
        {"method": "blank", "proponents": ["", " "], "proponent_ids": ["p", "q"]},
        {"method": "no texts", "proponents": None, "proponent_ids": ["r", 5]},
        {"method": "ids", "proponents": ["u", "v"], "proponent_ids": ["", "z" * 5000]},
        {"method": "halves", "proponents": ["\ud800 a", "\0 b"], "inputs_plaintext": "p\ud800\0"},
        {"method": "nothing", "proponents": [], "proponent_ids": [], "proponent_scores": []},
    ]
    rows = shown(written(tmp_path / "odd.jsonl", *(RECORD | sides | one for one in odd)))
    by_method: dict[str, list[str]] = {}
    for method, _, _, _, text in rows:
        by_method.setdefault(method.removeprefix("imported:"), []).append(text)
    assert by_method == {
        "same-text": ["x", "x"],
        "one-id": ["x", "y"],
        "blank": ["The file has no text of p.", "The file has no text of q."],
        "no-texts": ["The file has no text of r.", "The file has no text of 5."],
        "ids": ["u", "v"],
        "halves": ["? a", "\ufffd b"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no lines"),
        (b"\xff\xfe", "cannot be read"),
        ("[1]", ":1: a record is a JSON object"),
        ("[" * 100_000, ":1: is no JSON"),
        (json.dumps(RECORD) + "\n{", ":2: is no JSON"),
        ("{}", "needs a text `inputs_plaintext`"),
        (json.dumps(RECORD | {"proponent_scores": [1]}), "must be lists of one length"),
        (json.dumps(RECORD | {"proponent_scores": [1, "2"]}), "proponent 2 is no finite number"),
        (json.dumps(RECORD | {"proponents": "ab"}), "must be lists of one length"),
        (json.dumps(RECORD | {"proponent_correct": [1, 0]}), "a list of true and false"),
        (json.dumps(RECORD | {"proponent_correct": [True]}), "a list of true and false"),
    ],
)
def test_broken_files_are_refused_with_their_line(
    broken: Callable[..., str], content: bytes | str, message: str
) -> None:
    assert message in broken(content)


def test_what_a_lake_exports_is_what_is_shown(demo_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    shutil.copytree(demo_folder / "lake", tmp_path / "lake")
    with open_lake(tmp_path / "lake") as lake:
        lake.export(file, traces="last", form="viewer")
        [last] = lake.sql("SELECT trace_id FROM traces ORDER BY created_at DESC LIMIT 1").to_dicts()
        wanted = lake.hits([last["trace_id"]]).to_dicts()
    found = [row[1:] for row in shown(file)]
    assert found == [(one["side"], one["rank"], one["score"], one["text"]) for one in wanted] != []

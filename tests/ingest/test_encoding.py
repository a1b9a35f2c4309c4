"""Every distinct text is encoded exactly once, however often a run is killed, and what is left out is counted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sqlalchemy import select

import proponent
from proponent.encode.encoder import Encoder
from proponent.encode.tokens import passage_examples
from proponent.ingest import encoding as encoding_module
from proponent.ingest.encode_work import EncodeCounts
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, ModelMismatchError, MomentsError, NotFoundError, SettingsError
from proponent.schema.ids import text_hash
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import codes_of
from proponent.store.codes import Codes, dequantise
from proponent.store.fidelity import fidelity

Write = Callable[..., Path]
Read = Callable[..., list[dict[str, Any]]]

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=200)


@pytest.fixture
def filled(lake: proponent.Lake, write_jsonl: Write, checkpoint_dir: Path, sentences: list[str]) -> proponent.Lake:
    """A lake with a model and 70 documents of one sentence, ten of them repeated under other ids."""
    lake.add_model(checkpoint_dir, name="tiny")
    texts = [*sentences, *sentences[:10]]
    rows = [{"id": n, "text": text, "source": "odd" if n % 2 else "even"} for n, text in enumerate(texts)]
    lake.ingest(write_jsonl(rows), corpus="c")
    return lake


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_module, "ENCODE_AT_ONCE", 8)
    monkeypatch.setattr(encoding_module, "PUBLISH_EVERY", 16)


@pytest.fixture
def in_one_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units as large as they are; fidelity is measured on the first."""
    monkeypatch.setattr(encoding_module, "ENCODE_AT_ONCE", 512)


def hashes(read_table: Read, lake: proponent.Lake, encoder: str = "tiny") -> list[str]:
    return [row["text_hash"] for row in read_table(lake, f"encodings_{encoder}", sort="text_hash")]


def test_repeated_texts_are_encoded_once(filled: proponent.Lake, read_table: Read, sentences: list[str]) -> None:
    assert filled.encode(settings=SMALL) == EncodeCounts(encoded=60)
    assert len(read_table(filled, "passages")) == 70
    assert hashes(read_table, filled) == sorted({text_hash(text) for text in sentences})


def test_stored_encodings_are_the_encoders_up_to_quantisation(
    filled: proponent.Lake, read_table: Read, sentences: list[str]
) -> None:
    filled.encode(settings=SMALL)
    with filled.store.catalog.read() as session:
        row = session.get_one(models.Encoder, "tiny")
    encoder = filled._encoders.encoder(row)
    examples = passage_examples(encoder.projector.checkpoint.tokenizer, sentences)
    exact = encoder.encode(examples)
    stored = {row["text_hash"]: row for row in read_table(filled, "encodings_tiny", sort="text_hash")}
    for text, example, vector, loss in zip(sentences, examples, exact.vectors, exact.losses.tolist(), strict=True):
        found = stored[text_hash(text)]
        assert found["norm"] == pytest.approx(float(vector.norm()), rel=1e-4)
        assert found["loss"] == pytest.approx(loss, rel=1e-4)
        assert found["n_tokens"] == len(example.token_ids)
        codes, scales = np.array([found["codes"]], np.int8), np.array([found["scales"]], np.float16)
        unit = dequantise(Codes("int8", codes, scales))[0]
        cosine = float(unit @ vector.numpy() / np.linalg.norm(unit) / vector.norm())
        assert cosine > 0.9999


@pytest.mark.usefixtures("in_one_unit")
@pytest.mark.parametrize("codes", ["float16", "int4"])
def test_an_encoder_keeps_its_vectors_in_the_format_that_it_was_made_with(
    filled: proponent.Lake, write_jsonl: Write, codes: str
) -> None:
    filled.encode(settings=SMALL, codes=codes)
    filled.ingest(write_jsonl([{"id": "new", "text": "Oslo is the capital of Norway."}]), corpus="c")
    filled.encode(settings=SMALL)
    table = filled.store.table("encodings_tiny", at=filled.snapshot)
    assert (table.count_rows(), codes_of(table.schema)) == (61, codes)
    [row] = filled.sql("SELECT codes FROM encoders")
    assert row.codes == codes
    [told] = filled.status()["encoders"]
    assert told["codes"] == told["fidelity"]["codes"] == codes
    assert len(filled.trace("The capital of", " France", method="logra", k=3)) > 0


def test_other_codes_than_an_encoder_has_are_refused_with_the_way_to_them(filled: proponent.Lake) -> None:
    with pytest.raises(SettingsError, match="codes must be one of float16, int8, int4"):
        filled.encode(settings=SMALL, codes="int2")
    filled.encode(settings=SMALL)
    before = filled.snapshot
    with pytest.raises(SettingsError, match="'tiny' has int8 codes; `proponent requantise LAKE --encoder tiny --codes"):
        filled.encode(settings=SMALL, codes="int4")
    with pytest.raises(SettingsError, match=r"finer ones need another encoder: .*--codes float16"):
        filled.encode(settings=SMALL, codes="float16")
    assert filled.encode(settings=SMALL, codes="int8") == EncodeCounts(before=60)
    assert filled.snapshot == before


def test_the_format_is_no_part_of_the_encoders_id(filled: proponent.Lake) -> None:
    filled.encode(settings=SMALL, codes="float16")
    with filled.store.catalog.read() as session:
        row = session.get_one(models.Encoder, "tiny")
    assert row.encoder_id == SMALL.encoder_id(model_id=row.model_id)
    assert "codes" not in row.settings


def test_an_encoder_whose_codes_were_made_coarser_encodes_on(
    filled: proponent.Lake, write_jsonl: Write, read_table: Read
) -> None:
    filled.encode(settings=SMALL)
    before, rows = filled.snapshot, hashes(read_table, filled)
    told = filled.requantise(codes="int4")
    assert (told["encoder"], told["codes"], told["fidelity"]["against"]) == ("tiny", "int4", "int8")
    assert hashes(read_table, filled) == rows
    filled.ingest(write_jsonl([{"id": "new", "text": "Oslo is the capital of Norway."}]), corpus="c")
    assert filled.encode(settings=SMALL) == EncodeCounts(encoded=1, before=60)
    assert codes_of(filled.store.table("encodings_tiny", at=filled.snapshot).schema) == "int4"
    assert codes_of(filled.store.table("encodings_tiny", at=before).schema) == "int8"
    [earlier] = filled.sql("SELECT count(*) AS n FROM encodings", at=before.snapshot_id)
    assert earlier.n == 70
    with pytest.raises(SettingsError, match="'tiny' has int4 codes"):
        filled.requantise("tiny", codes="int8")


@pytest.mark.usefixtures("in_one_unit")
def test_the_fidelity_is_that_of_the_first_texts_and_gives_way_to_a_larger_sample(
    filled: proponent.Lake, write_jsonl: Write, sentences: list[str]
) -> None:
    def in_catalog() -> Any:
        [row] = filled.sql("SELECT fidelity FROM encoders")
        return json.loads(row.fidelity)

    counts = filled.encode(settings=SMALL)
    with filled.store.catalog.read() as session:
        encoder = filled._encoders.encoder(session.get_one(models.Encoder, "tiny"))
    texts = sorted(set(sentences), key=text_hash)
    vectors = encoder.encode(passage_examples(encoder.projector.checkpoint.tokenizer, texts)).vectors
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    expected = fidelity(unit, "int8", against="float32")
    assert counts.fidelity == in_catalog() == pytest.approx(expected, abs=1e-3)
    assert (expected["sample"], expected["codes"], expected["against"]) == (60, "int8", "float32")
    for n, kept in ((59, 60), (60, 60), (61, 61)):
        rows = [{"id": f"{n}-{place}", "text": f"{n} {place}: {sentences[place % 60]}"} for place in range(n)]
        filled.ingest(write_jsonl(rows), corpus=f"c{n}")
        counts = filled.encode(settings=SMALL)
        assert counts.encoded == n
        assert in_catalog()["sample"] == kept
        assert (counts.fidelity is None) == (n < 60)


def test_encoding_again_changes_nothing(filled: proponent.Lake) -> None:
    filled.encode(settings=SMALL)
    before = filled.snapshot
    assert filled.encode(settings=SMALL) == EncodeCounts(before=60)
    assert filled.snapshot == before


def test_new_passages_are_encoded_and_old_ones_are_not(
    filled: proponent.Lake, write_jsonl: Write, read_table: Read
) -> None:
    filled.encode(settings=SMALL)
    filled.ingest(write_jsonl([{"id": "new", "text": "Oslo is the capital of Norway."}]), corpus="c")
    assert filled.encode(settings=SMALL) == EncodeCounts(encoded=1, before=60)
    assert len(set(hashes(read_table, filled))) == 61


@pytest.mark.parametrize("calls", [1, 2, 4, 7])
def test_an_interruption_in_the_middle_loses_and_doubles_nothing(
    filled: proponent.Lake,
    tmp_path: Path,
    read_table: Read,
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    right, done = Encoder.encode, 0

    def crash(self: Encoder, examples: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if done == calls:
            raise KeyboardInterrupt
        return right(self, examples, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", crash)
        with pytest.raises(KeyboardInterrupt):
            filled.encode(settings=SMALL)
    with proponent.open(tmp_path / "lake") as again:
        published = (calls - 1) * 8  # a Ctrl-C publishes what was written
        counts = again.encode(settings=SMALL)
        assert (counts.before, counts.encoded) == (published, 60 - published)
        assert hashes(read_table, again) == sorted({text_hash(text) for text in sentences})
        with again.store.catalog.read() as session:
            ended = {run.status for run in session.scalars(select(models.Run).where(models.Run.kind == "encode"))}
        assert ended == {"failed", "done"}


def test_only_what_a_filter_allows_is_encoded(filled: proponent.Lake, read_table: Read, sentences: list[str]) -> None:
    filled.encode(settings=SMALL, only="source = 'odd'")
    odd = {text_hash(text) for n, text in enumerate([*sentences, *sentences[:10]]) if n % 2}
    assert hashes(read_table, filled) == sorted(odd)
    filled.encode(settings=SMALL)
    assert len(hashes(read_table, filled)) == 60


@pytest.fixture
def with_long_text(filled: proponent.Lake, write_jsonl: Write, sentences: list[str]) -> proponent.Lake:
    """The filled lake and a passage that was cut in characters, too long for the model."""
    from proponent.ingest.corpus import ingest
    from proponent.ingest.cutter import character_cutter
    from proponent.schema.settings import IngestSettings

    file = write_jsonl([{"id": "long", "text": " ".join(sentences[:10])}], "long.jsonl")
    ingest(filled.store, [file], IngestSettings(corpus="long"), character_cutter(10_000))
    return filled


def test_a_passage_longer_than_the_context_is_counted_and_left_out(
    with_long_text: proponent.Lake, read_table: Read
) -> None:
    assert with_long_text.encode(settings=SMALL) == EncodeCounts(encoded=60, too_long=1)
    assert len(hashes(read_table, with_long_text)) == 60


def test_a_passage_that_was_left_out_is_no_error_the_second_time(with_long_text: proponent.Lake) -> None:
    with_long_text.encode(settings=SMALL)
    assert with_long_text.encode(settings=SMALL) == EncodeCounts(before=60, too_long=1)


def test_a_passage_longer_than_the_context_is_cut_off_on_request(
    with_long_text: proponent.Lake, read_table: Read
) -> None:
    with_long_text.encode(settings=SMALL)
    assert with_long_text.encode(settings=SMALL, truncate=True) == EncodeCounts(encoded=1, truncated=1, before=60)
    assert max(row["n_tokens"] for row in read_table(with_long_text, "encodings_tiny")) == 64


def test_when_nothing_can_be_encoded_it_is_an_error(with_long_text: proponent.Lake) -> None:
    with pytest.raises(EncodingError, match="1 passages too long"):
        with_long_text.encode(settings=SMALL, only="corpus = 'long'")


def test_vectors_that_are_not_finite_are_counted_and_left_out(
    filled: proponent.Lake, read_table: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Encoder.encode

    def spoiled(self: Encoder, examples: Any, **options: Any) -> Any:
        found = right(self, examples, **options)
        found.vectors[0] = torch.nan
        found.vectors[1] = 0
        return found

    monkeypatch.setattr(Encoder, "encode", spoiled)
    counts = filled.encode(settings=SMALL)
    assert (counts.encoded, counts.not_finite) == (44, 16)
    assert all(np.isfinite(row["norm"]) and row["norm"] > 0 for row in read_table(filled, "encodings_tiny"))


def test_the_sample_depends_on_the_corpus_and_not_on_the_order_it_came_in(
    tmp_path: Path, write_jsonl: Write, checkpoint_dir: Path, sentences: list[str]
) -> None:
    found = []
    for texts in (sentences, sentences[::-1]):
        with proponent.init(tmp_path / f"lake{len(found)}") as lake:
            lake.add_model(checkpoint_dir, name="tiny")
            lake.ingest(write_jsonl([{"id": text, "text": text} for text in texts]), corpus="c")
            lake.encode(settings=EncoderSettings(blocks=1, side=8, moments="estimated", sample=30))
            with lake.store.catalog.read() as session:
                found.append(session.get_one(models.Encoder, "tiny").artifact)
    assert found[0] == found[1]


def test_the_catalog_says_what_the_encoder_is(filled: proponent.Lake) -> None:
    filled.encode(settings=SMALL)
    with filled.store.catalog.read() as session:
        row = session.get_one(models.Encoder, "tiny")
        curvature = session.scalars(select(models.Curvature)).one()
    assert (row.dim, row.moments, row.settings) == (SMALL.dim, "none", SMALL.to_dict())
    assert 0 < row.coverage < 1
    assert "lm_head.weight" in row.uncovered
    assert (curvature.encoder, curvature.name, curvature.n_rows, curvature.mixing) == ("tiny", "reference", 60, 0.0)
    assert all(0 <= rho <= 1 for rho in curvature.diagnostics["rho"])


def test_without_an_optimizer_state_moments_are_estimated(filled: proponent.Lake) -> None:
    filled.encode(settings=EncoderSettings(blocks=1, side=8))
    with filled.store.catalog.read() as session:
        row = session.get_one(models.Encoder, "tiny")
    assert (row.moments, row.settings["moments"]) == ("estimated", "estimated")


def moments_for(path: Path, checkpoint: Path) -> Path:
    from safetensors.torch import load_file

    weights = {name: w for name, w in load_file(checkpoint / "model.safetensors").items() if "_proj" in name}
    rows = {f"{name}.row": w.square().mean(1) for name, w in weights.items()}
    save_file(rows | {f"{name}.col": w.square().mean(0) for name, w in weights.items()}, path)
    return path


def test_the_optimizers_moments_are_used_where_there_are_any(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, checkpoint_dir: Path, sentences: list[str]
) -> None:
    moments = moments_for(tmp_path / "moments.safetensors", checkpoint_dir)
    lake.add_model(checkpoint_dir, name="tiny", moments=moments)
    lake.ingest(write_jsonl([{"id": text, "text": text} for text in sentences]), corpus="c")
    lake.encode(settings=EncoderSettings(blocks=1, side=8))
    with lake.store.catalog.read() as session:
        assert session.get_one(models.Encoder, "tiny").moments == "adam-factored"


def test_moments_that_changed_since_they_were_registered_are_refused(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, checkpoint_dir: Path, sentences: list[str]
) -> None:
    moments = moments_for(tmp_path / "moments.safetensors", checkpoint_dir)
    lake.add_model(checkpoint_dir, name="tiny", moments=moments)
    lake.ingest(write_jsonl([{"id": text, "text": text} for text in sentences]), corpus="c")
    moments.write_bytes(moments.read_bytes()[:-9])
    with pytest.raises(MomentsError, match="has changed since the model was registered"):
        lake.encode(settings=EncoderSettings(blocks=1, side=8))


def test_moments_of_a_file_need_a_file(filled: proponent.Lake) -> None:
    with pytest.raises(MomentsError, match="without an optimizer state; use --moments estimated"):
        filled.encode(settings=EncoderSettings(moments="file"))


def test_an_encoders_name_keeps_its_settings(filled: proponent.Lake) -> None:
    filled.encode(settings=SMALL)
    other = EncoderSettings(**(SMALL.to_dict() | {"seed": 1}))
    with pytest.raises(SettingsError, match=r"was made with .*--blocks 1.*; repeat its settings"):
        filled.encode(settings=other)
    with pytest.raises(SettingsError, match="have an encoder already, 'tiny'"):
        filled.encode(settings=SMALL, encoder="again")
    assert filled.encode(settings=other, encoder="second").encoded == 60


def test_a_size_left_open_is_that_of_the_encoder_that_is_there(filled: proponent.Lake, write_jsonl: Write) -> None:
    filled.encode(settings=SMALL)
    filled.ingest(write_jsonl([{"id": "new", "text": "A sentence that came later."}]), corpus="more")
    assert filled.encode(settings=EncoderSettings(moments="none", sample=200)).encoded == 1
    [row] = filled.sql("SELECT dim, settings FROM encoders").to_dicts()
    assert row["dim"] == SMALL.dim


def test_a_size_left_open_goes_by_the_models_layers(filled: proponent.Lake) -> None:
    filled.encode(settings=EncoderSettings(moments="none", side=8, sample=200))
    [row] = filled.sql("SELECT e.dim, m.n_layers FROM encoders e JOIN models m USING (model_id)").to_dicts()
    assert row["dim"] == 2 * row["n_layers"] * 8**2


@pytest.mark.parametrize("name", ["Tiny", "a b", "a-b", "1"])
def test_an_encoders_name_can_name_a_table(filled: proponent.Lake, name: str) -> None:
    with pytest.raises(SettingsError, match="encoder's name"):
        filled.encode(settings=SMALL, encoder=name)


def test_a_lake_without_passages_has_nothing_to_fit_on(lake: proponent.Lake, checkpoint_dir: Path) -> None:
    lake.add_model(checkpoint_dir, name="tiny")
    with pytest.raises(NotFoundError, match="ingest a corpus first"):
        lake.encode(settings=SMALL)


def test_a_model_whose_weights_changed_is_refused(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, make_checkpoint: Callable[..., Path], checkpoint_dir: Path
) -> None:
    path = shutil.copytree(checkpoint_dir, tmp_path / "model")
    lake.add_model(path, name="tiny")
    lake.ingest(write_jsonl([{"id": 1, "text": "x y z"}]), corpus="c")
    make_checkpoint(path, seed=5)
    with pytest.raises(ModelMismatchError, match="has changed since it was registered"):
        lake.encode(settings=SMALL)

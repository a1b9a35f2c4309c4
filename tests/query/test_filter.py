"""The gate lets through one boolean expression over known columns and functions, and gives it its SQL meaning."""

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.filter import COLUMNS, MAX_LENGTH, parse_filter
from proponent.query.search import find_candidates
from proponent.query.session import Session
from proponent.schema.errors import FilterError, NotFoundError
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

REFUSED = [
    # no expression, or more than one
    "", "   ", "\n", "source =", "= 1", "source = 'x", "AND", "source = 'a' source = 'b'", "source = 'a';",
    "true; DROP TABLE documents", "true), (false", "true, false", "source IS", "published BETWEEN 1", "(true", "true)",
    "true /*", "\x00", "🙂", "\ud800",
    # breaking out
    "true) UNION SELECT passage_id, text_hash FROM passages WHERE (true", "true) OR (true) ; SELECT (1",
    "true) ORDER BY (passage_id", "true) LIMIT (1", "true) GROUP BY (1", "true) HAVING (true", "true) -- ",
    "true)\n-- \n", "true) QUALIFY (true", "true) USING SAMPLE (10%", "true /* */ ) -- (",
    "true) FROM x WHERE (true", "true) EXCEPT SELECT 1 WHERE (true", "true) OFFSET (1",
    # subqueries, windows, parameters, stars, lambdas
    "EXISTS (SELECT 1)", "source IN (SELECT source FROM documents)", "(SELECT true)", "source = (SELECT 'x')",
    "source = ANY (SELECT 'x')", "row_number() OVER () = 1", "sum(n_tokens) OVER () > 1", "source = ?", "source = $1",
    "source = $name", "*", "COLUMNS(*) = 1", "count(*) > 1", "len(list_filter(entities, x -> true)) > 0",
    "len(list_filter(entities, lambda x: true)) > 0", "len([x for x in entities if true]) > 0", "#1 = 1",
    "source COLLATE NOCASE = 'x'", "TRY(1/0) = 1", "ROW(1, 2) = ROW(1, 2)", "{'a': 1} = {'a': 1}",
    "source = DEFAULT", "UNIQUE", "MAP {1: 2} = MAP {1: 2}",
    # columns that are not there, or not by their plain name
    "secret = 1", "documents.source = 'x'", "main.documents.source = 'x'", "rowid = 1", "source.x = 1", "codes = 1",
    "norm > 1", "named.entities = []", '"true" = 1', "current_user = 'x'", "CURRENT_DATE > published",
    "metadata.stars = 1",
    # functions that reach out, cost, or do not repeat
    "getenv('HOME') = 'x'", "read_text('/etc/passwd') = 'x'", "random() < 0.5", "now() > published",
    "today() > published",
    "current_setting('memory_limit') = 'x'", "uuid() = 'x'", "nextval('s') = 1", "sleep_ms(1000) IS NULL",
    "query('x') = 1",
    "repeat('x', 1000000000) = source", "list_sum([1]) = 1", "sum(n_tokens) > 1", "max(source) = 'x'", "range(10) = []",
    "main.length(source) > 1", "system.main.length(source) > 1", "lpad('x', 1000000, 'x') = source", "error('x')",
    "hash(source) = 1", "set_bit('1'::BIT, 0, 1) = 1", "entity()", "entity('a', 'b')", "entity(DISTINCT 'a')",
    "entity('a') FILTER (WHERE true)", "length(source ORDER BY source) > 1", "nosuchfunction(source)",
    "write_log('x') IS NULL",
    "source GLOB '*'", "unnest(entities) = 'x'", "getvariable('x') = 1", "txid_current() > 0", "version() = 'x'",
    # casts
    "source::JSON = '1'", "source::BLOB = 'x'", "CAST(source AS STRUCT(a INTEGER)) IS NULL", "source::INTEGER[] = []",
    "source::UUID IS NULL", "source::ENUM('a') = 'a'", "source::main.mytype = 1", "INTERVAL '1 day' IS NULL",
    "source::regclass = 1", "n_tokens::DECIMAL(38, 10) = 1", "'x'::BIT IS NULL",
    # too long or too deep
    "true" + " AND true" * 2000, "(" * 100 + "NOT " * 200 + "true" + ")" * 100, "NOT " * 2000 + "true",
    "1" + "+1" * 3000 + " > 0", "abs(" * 1000 + "1" + ")" * 1000 + " > 0", "- " * 4000 + "1 > 0",
    "''" + "||''" * 2000 + " = ''", "CASE WHEN true THEN " * 100 + "true" + " END" * 100,
    # the wrong types
    "length(published) > 1", "year(source) = 2000", "source > 5", "source", "published", "entities", "source + 1 > 0",
    "published > 'yesterday'", "entity(1 = 'x')", "1/0 = 'x'", "NOT title", "regexp_matches(text, '(')",
    "title LIKE 'a' ESCAPE 'xx'",
]  # fmt: skip

ACCEPTED = [
    "true", "false", "NULL", "source = 'news'", "source = 'O''Reilly'", "source = 'wëb'", "source <> 'news'",
    "source IS NULL", "source IS NOT NULL", "NOT (source = 'news')", "source IN ('news', 'wiki')",
    "source NOT IN ('news', NULL)", "source IS DISTINCT FROM 'news'", "SOURCE = 'news'", '"source" = \'news\'',
    "published >= DATE '2005-06-01'", "published BETWEEN DATE '2003-01-01' AND DATE '2008-12-31'",
    "published NOT BETWEEN DATE '2003-01-01' AND DATE '2008-12-31'", "year(published) = 2004",
    "published < '2003-01-01'",
    "date_trunc('year', published) = DATE '2004-01-01'", "published + to_years(1) > DATE '2010-01-01'",
    "extract('month' FROM published) = 3", "source = 'news' AND published > DATE '2004-01-01' OR title IS NULL",
    "source = 'news' AND (published > DATE '2004-01-01' OR title IS NULL)", "title LIKE '%1% 100!%' ESCAPE '!'",
    "title LIKE 'Title 1_ %'", "title ILIKE 'TITLE%'", "title NOT LIKE '%2%'", "title SIMILAR TO 'Title [0-9] .*'",
    "regexp_matches(text, '^Text [0-9]')", "text ~ 'Rep.*'", "starts_with(text, 'Repeated')",
    "contains(text, 'ünïcode_%')",
    "length(text) > 20 AND n_tokens % 3 = 1", "n_tokens * 2 + 1 > 50", "n_tokens // 2 > 10", "-n_tokens < -30",
    "abs(ordinal - 1) = 1",
    "n_tokens = 17.0", "n_tokens > 1e1", "n_tokens / 4 > 7.5", "ordinal = 1", "trained_on", "NOT trained_on",
    "trained_on IS TRUE",
    "trained_on IS NOT FALSE", "coalesce(trained_on, false)", "coalesce(source, 'none') = 'none'",
    "nullif(source, 'news') IS NULL",
    "CASE WHEN source = 'news' THEN ordinal = 0 WHEN source IS NULL THEN true ELSE ordinal = 1 END",
    "CASE language WHEN 'en' THEN true END", "n_tokens::VARCHAR = '17'", "TRY_CAST(title AS INTEGER) IS NULL",
    "CAST(n_tokens AS DOUBLE) > 20.5", "metadata->>'$.stars' = '3'", "CAST(metadata->>'stars' AS INTEGER) >= 4",
    "json_extract_string(metadata, '$.tags[0]') = 'a'", "lower(title) = 'title 7 100%'",
    "title || language = 'Title 7 100%fr'",
    "left(title, 1) = 'T'", "substring(title, 7, 1) = '1'", "replace(source, 'e', 'i') = 'niws'",
    "1 = 1 --", "doc_key IN ('d1', 'd2', 'd3') -- a comment", "/* a comment */ doc_key = 'd1'",
    "source = 'news'\n  AND\n\tordinal = 0",
    "source = '); DROP TABLE documents; --'", "source = '$1 ? :x'", "text > 'T'", "text_hash = 'none'",
    "9223372036854775807 > n_tokens",
    "true" + " OR false" * 900,
]  # fmt: skip

WORDS = [
    "(", ")", "AND", "OR", "NOT", "NULL", "true", "source", "published", "'x'", "1", "=", "<", "+", "-", ",", ";",
    "--", "/*", "*/", "IN", "SELECT", "FROM", "passages", "UNION", "WHERE", "entity", "[", "]", "::", "INTEGER",
    "DATE", "$1", "?", "*", ".", "'", "CASE", "WHEN", "THEN", "END", "BETWEEN", "LIKE", "IS", "\n",
]  # fmt: skip

ENTITY = {
    "entity('France')": "list_contains(entities, 'France')",
    "ENTITY('日本')": "list_contains(entities, '日本')",
    "not entity('Peru')": "NOT list_contains(entities, 'Peru')",
    "entity('Côte d''Ivoire') AND entity('O''Higgins')": (
        "list_contains(entities, 'Côte d''Ivoire') AND list_contains(entities, 'O''Higgins')"
    ),
    "entity('France') OR source = 'wiki'": "list_contains(entities, 'France') OR source = 'wiki'",
    "entity('nobody')": "false",
    "entity(NULL)": "NULL",
    "entity(source)": "list_contains(entities, source)",
    "CASE WHEN entity('France') THEN ordinal = 0 ELSE NOT entity('Peru') END": (
        "CASE WHEN list_contains(entities, 'France') THEN ordinal = 0 ELSE NOT list_contains(entities, 'Peru') END"
    ),
    "len(entities) = 0": "len(entities) = 0",
    "len(entities) = 2": "len(entities) = 2",
    "list_has_any(entities, ['France', 'Peru'])": "list_has_any(entities, ['France', 'Peru'])",
    "entities = ['France']": "entities = ['France']",
}


@pytest.fixture(scope="module")
def plain(filled: LakeStore, at: Snapshot) -> Iterator[duckdb.DuckDBPyConnection]:
    """Plain DuckDB over copies of the same tables."""
    with duckdb.connect() as connection:
        for name in ("documents", "passages", "mentions"):
            connection.register(f"arrow_{name}", filled.table(name, at=at).to_table())
            connection.execute(f"CREATE TABLE {name} AS FROM arrow_{name}")
        yield connection


def expected(connection: duckdb.DuckDBPyConnection, predicate: str) -> list[str]:
    rows = connection.execute(
        f"""
        SELECT passage_id FROM (
            SELECT p.*, d.* EXCLUDE (doc_id), coalesce(
                (SELECT list(DISTINCT entity ORDER BY entity) FROM mentions m WHERE m.passage_id = p.passage_id), []
            ) AS entities
            FROM passages p JOIN documents d ON d.doc_id = p.doc_id
        ) WHERE (
        {predicate}
        ) ORDER BY passage_id
        """
    ).fetchall()
    return [row[0] for row in rows]


def passages_of(session: Session, fragment: str) -> list[str]:
    checked = parse_filter(fragment)
    name = "candidates_with_entities" if checked.uses_entities else "candidates"
    return sorted(session.trusted(name, predicate=checked.sql)["passage_id"].to_pylist())


@pytest.mark.parametrize("fragment", REFUSED, ids=lambda text: repr(text[:40]))
def test_anything_else_is_refused_in_one_line(filled: LakeStore, at: Snapshot, session: Session, fragment: str) -> None:
    with pytest.raises(FilterError) as caught:
        find_candidates(filled, session, at, encoder="e", where=fragment or " ")
    message = str(caught.value)
    assert message.strip()
    assert len(message.splitlines()) == 1
    assert session.sql("SELECT count(*) AS n FROM documents").to_dicts() == [{"n": 60}]


@pytest.mark.parametrize("fragment", ACCEPTED, ids=lambda text: repr(text[:40]))
def test_a_filter_means_what_it_means_in_sql(session: Session, plain: duckdb.DuckDBPyConnection, fragment: str) -> None:
    assert passages_of(session, fragment) == expected(plain, fragment)


@pytest.mark.parametrize("fragment", ENTITY, ids=repr)
def test_entity_is_membership_in_the_passages_entities(
    session: Session, plain: duckdb.DuckDBPyConnection, fragment: str
) -> None:
    found = passages_of(session, fragment)
    assert found == expected(plain, ENTITY[fragment])
    assert parse_filter(fragment).uses_entities


def test_what_leaves_no_trace_in_the_tree_leaves_none_in_the_search() -> None:
    assert parse_filter("true) WINDOW w AS (ORDER BY source").sql == parse_filter("true").sql


def test_the_tables_are_not_vacuous() -> None:
    assert len(REFUSED) > 100
    assert len(ACCEPTED) + len(ENTITY) > 70


def test_a_passage_without_entities_has_none_of_any_name(session: Session) -> None:
    everything = passages_of(session, "true")
    inside, outside = passages_of(session, "entity('France')"), passages_of(session, "NOT entity('France')")
    assert inside
    assert sorted(inside + outside) == everything


def test_unknown_columns_name_the_known_ones() -> None:
    with pytest.raises(FilterError, match=r"no column 'sources' to filter by; there are author, .*source, .*url"):
        parse_filter("sources = 'x'")


@pytest.mark.parametrize("column", sorted(COLUMNS))
def test_every_known_column_can_be_filtered_by(session: Session, column: str) -> None:
    everything = passages_of(session, "true")
    null, rest = passages_of(session, f"{column} IS NULL"), passages_of(session, f'"{column}" IS NOT NULL')
    assert sorted(null + rest) == everything


def test_a_filter_may_be_as_long_as_the_limit_says() -> None:
    room = MAX_LENGTH - len("source = ''")
    assert parse_filter(f"source = '{'x' * room}'").columns == {"source"}
    with pytest.raises(FilterError, match="at most 10000 are read"):
        parse_filter(f"source = '{'x' * (room + 1)}'")


def test_a_filter_is_only_looked_at_where_there_are_encodings(
    filled: LakeStore, at: Snapshot, session: Session
) -> None:
    with pytest.raises(NotFoundError, match="encoder 'idle' has encoded nothing yet; run `proponent encode`"):
        find_candidates(filled, session, at, encoder="idle", where=None)


@given(st.text(max_size=40))
def test_no_text_at_all_gets_past_the_gate_but_an_expression(text: str) -> None:
    try:
        assert parse_filter(text).columns <= COLUMNS
    except FilterError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


@given(
    st.lists(
        st.sampled_from(WORDS),
        max_size=14,
    )
)
def test_no_row_of_sql_words_gets_past_the_gate_but_an_expression(words: list[str]) -> None:
    try:
        checked = parse_filter(" ".join(words))
    except FilterError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert "SELECT" not in words
        assert ";" not in checked.sql
        # What was made of the tree is read again as the same tree.
        assert parse_filter(checked.sql).sql == checked.sql

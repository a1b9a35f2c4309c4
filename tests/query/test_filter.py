"""The gate lets through one boolean expression over known columns and functions, and gives it its SQL meaning."""

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.filter import COLUMNS, MAX_LENGTH, parse_filter
from proponent.query.search import find_candidates, passing
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

_OF = "FROM mentions AS m WHERE m.passage_id = candidates.passage_id"
MENTION = {
    "mention()": f"EXISTS (SELECT 1 {_OF})",
    "mention(true)": f"EXISTS (SELECT 1 {_OF})",
    "mention(false)": "false",
    "mention(NULL)": "false",
    "mention(type = 'ORG')": f"EXISTS (SELECT 1 {_OF} AND m.type = 'ORG')",
    'MENTION("type" IS NULL)': f"EXISTS (SELECT 1 {_OF} AND m.type IS NULL)",
    "mention(entity = 'Peru' AND type = 'GPE')": f"EXISTS (SELECT 1 {_OF} AND m.entity = 'Peru' AND m.type = 'GPE')",
    "entity('France') AND mention(type = 'GPE')": (
        f"EXISTS (SELECT 1 {_OF} AND m.entity = 'France') AND EXISTS (SELECT 1 {_OF} AND m.type = 'GPE')"
    ),
    "mention(surface = 'FRANCE')": f"EXISTS (SELECT 1 {_OF} AND m.surface = 'FRANCE')",
    "mention(surface <> entity)": f"EXISTS (SELECT 1 {_OF} AND m.surface <> m.entity)",
    "mention(surface ILIKE 'o''h%')": f"EXISTS (SELECT 1 {_OF} AND m.surface ILIKE 'o''h%')",
    "mention(origin = 'corpus')": f"EXISTS (SELECT 1 {_OF} AND m.origin = 'corpus')",
    "mention(starts_with(origin, 'spacy ') OR type = 'GPE')": (
        f"EXISTS (SELECT 1 {_OF} AND (m.origin LIKE 'spacy %' OR m.type = 'GPE'))"
    ),
    "mention(char_start > 50)": f"EXISTS (SELECT 1 {_OF} AND m.char_start > 50)",
    "mention(char_end - char_start = 4)": f"EXISTS (SELECT 1 {_OF} AND m.char_end - m.char_start = 4)",
    "mention(entity IN ('France', '日本') AND NOT type = 'ORG')": (
        f"EXISTS (SELECT 1 {_OF} AND m.entity IN ('France', '日本') AND m.type <> 'ORG')"
    ),
    "mention(length(entity) > ordinal + 5)": f"EXISTS (SELECT 1 {_OF} AND length(m.entity) > candidates.ordinal + 5)",
    "mention(title = 'Title 7 100%' OR language = 'fr' AND type = 'GPE')": (
        f"EXISTS (SELECT 1 {_OF} AND (title = 'Title 7 100%' OR language = 'fr' AND m.type = 'GPE'))"
    ),
    "CASE WHEN mention(type = 'ORG') THEN ordinal = 0 ELSE coalesce(mention(type = 'GPE'), false) END": (
        f"CASE WHEN EXISTS (SELECT 1 {_OF} AND m.type = 'ORG') THEN ordinal = 0 "
        f"ELSE EXISTS (SELECT 1 {_OF} AND m.type = 'GPE') END"
    ),
    "mention(entity = ');DROP TABLE mentions;--')": "false",
}
CERTAIN = {"mention(false)", "mention(NULL)", "mention(entity = ');DROP TABLE mentions;--')"}

MISTAKES = {
    "sources = 'x'": "no column 'sources' to filter by; did you mean 'source'? there are author, ... , url",
    "documents.sorce = 'x'": "no column 'documents.sorce' ... did you mean 'source'?",
    "date > DATE '2020-01-01'": "no column 'date' to filter by; write published; there are",
    'source = "news"': "no column 'news' to filter by; a text stands in single quotes, 'news'; there are",
    "metadata.stars = 3": "no column 'metadata.stars' to filter by; a field of the metadata is metadata ->> 'stars'",
    "type = 'ORG'": "no column 'type' to filter by; it is one of mentions, ... as in mention(type = 'x')",
    "mention(typ = 'ORG')": "no column 'typ' to filter by; did you mean 'type'? ... , surface, ... , type, ",
    "mention(mentions.type = 'x')": "no column 'mentions.type' to filter by; did you mean 'type'?",
    "lenght(text) > 9": "a filter may not call 'lenght'; did you mean 'length'?",
    "entity_type('ORG')": "a filter may not call 'entity_type'; write mention(type = 'ORG')",
    "entity('France', type := 'GPE')": "entity() takes one name; ... mention(entity = 'France' AND type = 'GPE')",
    "entity('France', 'Peru')": "entity() takes one name; ask for more",
    "entity(name := 'France')": "entity() takes one name",
    "entity()": "entity() takes one name, as in entity('France'); mention() asks for any",
    "entity(5)": "entity() takes one name, as in entity('France')",
    "mention(true, true)": "mention() takes one predicate; ask for more",
    "mention(entity('France'))": "entity() may not stand in mention()",
    "mention(mention(true))": "mention() may not stand in mention()",
    "source > 5": (
        'the filter cannot be applied: ("source" > 5): Cannot compare values of type VARCHAR ... ; source is VARCHAR; '
        "a text is written in single quotes"
    ),
    "ordinal = 0 AND (title = 'x' OR NOT published >= 2020)": (
        "(published >= 2020): ... ; published is DATE; a date is written DATE '2020-01-31', and year(published) = 2020"
    ),
    "published BETWEEN 2001 AND 2005": "(published BETWEEN 2001 AND 2005): ... ; published is DATE; a date is written",
    "metadata ->> 'stars' > 3": "((metadata ->> 'stars') > 3): ... CAST(... AS INTEGER) makes a number of it",
    "length(published) > 4": "length(published): No function matches ... 'length(DATE)' ... ; published is DATE",
    "mention(ordinal = 0 AND length(char_start) > 4)": "length(char_start): No function ... ; char_start is BIGINT",
    "source": 'the filter must be true or false for a passage, and "source" is VARCHAR',
    "n_tokens": "the filter must be true or false for a passage, and n_tokens is INTEGER",
    "1": "the filter must be true or false for a passage, and 1 is INTEGER",
    "mention(type)": "Could not convert string",
    "CAST(title AS INTEGER) = 7": "Could not convert string ... ; TRY_CAST makes NULL of what cannot be converted",
    "published > 'yesterday'": 'invalid date field format: "yesterday", expected format is (YYYY-MM-DD)',
    "regexp_matches(text, '(')": "regexp_matches(\"text\", '('): missing )",
}


@pytest.fixture(scope="module")
def plain(filled: LakeStore, at: Snapshot) -> Iterator[duckdb.DuckDBPyConnection]:
    """Plain DuckDB over copies of the same tables."""
    with duckdb.connect() as connection:
        for name in ("documents", "passages", "mentions", "near_duplicates"):
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
        ) AS candidates WHERE (
        {predicate}
        ) ORDER BY passage_id
        """
    ).fetchall()
    return [row[0] for row in rows]


def passages_of(session: Session, fragment: str) -> list[str]:
    return sorted(passing(session, fragment)["passage_id"].to_pylist())


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
    assert passages_of(session, fragment) == expected(plain, ENTITY[fragment])


@pytest.mark.parametrize("fragment", MENTION, ids=repr)
def test_mention_asks_whether_one_mention_meets_a_predicate(
    session: Session, plain: duckdb.DuckDBPyConnection, fragment: str
) -> None:
    found = passages_of(session, fragment)
    assert found == expected(plain, MENTION[fragment])
    everything = passages_of(session, "true")
    assert sorted(found + passages_of(session, f"NOT ({fragment})")) == everything  # never NULL
    assert fragment in CERTAIN or 0 < len(found) < len(everything)


@pytest.mark.parametrize(
    "fragment",
    ["near_duplicate", "NOT near_duplicate", "NEAR_DUPLICATE IS TRUE", '"near_duplicate" AND ordinal = 0'],
)
def test_near_duplicate_is_what_the_relation_of_that_name_says(session: Session, fragment: str) -> None:
    marked = {row.doc_id for row in session.sql("SELECT doc_id FROM near_duplicates")}
    rows = session.sql("SELECT passage_id, doc_id, ordinal FROM passages")
    meant = [
        row.passage_id
        for row in rows
        if (row.doc_id in marked) is not fragment.startswith("NOT") and ("ordinal" not in fragment or row.ordinal == 0)
    ]
    assert marked
    assert passages_of(session, fragment) == sorted(meant)


@pytest.mark.parametrize("fragment", MISTAKES, ids=lambda text: repr(text[:40]))
def test_a_mistake_is_told_with_its_remedy(session: Session, fragment: str) -> None:
    with pytest.raises(FilterError) as caught:
        passing(session, fragment)
    message = str(caught.value)
    for part in MISTAKES[fragment].split(" ... "):
        assert part in message
    assert len(message.splitlines()) == 1


def test_a_filter_joins_no_more_than_it_names() -> None:
    assert not parse_filter("ordinal = 0 AND entity('France') AND NOT near_duplicate").uses_documents
    assert parse_filter("mention(entity = title)").uses_documents
    assert parse_filter("source = 'x'").uses_documents
    assert not parse_filter("source = 'x' AND entity('x')").uses_entities
    assert parse_filter("len(entities) = 0").uses_entities


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
    with pytest.raises(FilterError, match=r"no column 'sorts' to filter by; there are author, .*source, .*url"):
        parse_filter("sorts = 'x'")


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

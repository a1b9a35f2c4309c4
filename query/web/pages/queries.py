"""Queries: a whole set of them as a table, with what was found and how right that is."""

from functools import partial
from typing import Annotated, Any, Final

import msgspec

from proponent.query.web import asked
from proponent.query.web.asked import ChosenQueries, MethodMeans, Order, QueryRow
from proponent.query.web.evaluated import Measured
from proponent.query.web.explorer import Explorer
from proponent.query.web.keyset import Cursor, read_page
from proponent.query.web.page import Page

PRESETS: Final[dict[str, Order]] = {
    "Best answered": "answered",
    "Worst answered": "missed",
    "Strongest proponent": "proponent",
    "Most surprising opponent": "opponent",
    "The model is surest": "surest",
    "The model is least sure": "unsure",
}
"""Links to orders that people look for."""

_SETS: Final = "SELECT DISTINCT query_set FROM queries WHERE query_set IS NOT NULL ORDER BY query_set LIMIT 1000"
_METHODS: Final = "SELECT DISTINCT method FROM traces ORDER BY method"
_FIELDS: Final = (
    "SELECT DISTINCT unnest(json_keys(metadata)) AS field FROM queries WHERE json_type(metadata) = 'OBJECT' "
    "ORDER BY field LIMIT 200"
)


class WantedQueries(ChosenQueries, frozen=True, kw_only=True):
    """Which queries are listed, in which order, from which page on."""

    sort: Annotated[Order, msgspec.Meta(description="Order of the list.")] = "newest"
    after: Cursor | None = None
    before: Cursor | None = None


class MeasuredQuery(QueryRow, frozen=True, kw_only=True):
    """A query in the list."""

    measured: list[Measured]
    """What evaluations measured of it."""


class QueryChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What the list can be narrowed by."""

    query_sets: list[str]
    methods: list[str]
    fields: list[str]


class QueriesView(msgspec.Struct, frozen=True, kw_only=True):
    """The table, and means over all queries that it is of."""

    asked: WantedQueries
    given: QueryChoices
    total: int
    means: list[MethodMeans]
    queries: list[MeasuredQuery]
    before: str | None
    """What to give as `before` for the queries before these; null where there are none."""
    after: str | None
    """... as `after` for those after them."""
    judged: bool
    """Whether any query says which passages are right."""
    evaluations: list[str]
    sql: str
    means_sql: str

    @property
    def chosen(self) -> dict[str, Any]:
        """The conditions as the query string has them."""
        beside = {"after", "before", "sort"}
        return {name: value for name, value in msgspec.to_builtins(self.asked).items() if name not in beside}

    @property
    def presets(self) -> dict[str, Order]:
        """The presets that mean something here."""
        return {label: order for label, order in PRESETS.items() if self.judged or order not in {"answered", "missed"}}


def _load(explorer: Explorer, params: WantedQueries) -> QueriesView:
    asked.conditions(params)
    ranks = asked.right_ranks(explorer)
    found = ranks if ranks["traces"] else {}
    ranked: asked.Ranked = "given" if found else "not"
    page = read_page(
        explorer,
        partial(asked.listing, params, ranked=ranked),
        asked.ORDERS[params.sort],
        after=params.after,
        before=params.before,
        most=asked.PER_PAGE,
        parameters=found,
    )
    measured = [
        [one for of_one in explorer.evaluations.values() for one in of_one.by_question.get(_question(row), ())]
        for row in page.rows
    ]
    shown = [msgspec.convert(row | {"measured": []}, MeasuredQuery) for row in page.rows]
    shown_ranked: asked.Ranked = "alone" if found else "not"
    return QueriesView(
        asked=params,
        given=explorer.kept("narrowing queries", lambda: _given(explorer)),
        total=explorer.rows(asked.counting(params))[0]["n"],
        means=msgspec.convert(explorer.rows(asked.averaging(params, ranked=ranked), found), list[MethodMeans]),
        queries=[msgspec.structs.replace(row, measured=of_one) for row, of_one in zip(shown, measured, strict=True)],
        before=page.before,
        after=page.after,
        judged=bool(found),
        evaluations=list(explorer.evaluations),
        sql=page.shown(partial(asked.listing, params, ranked=shown_ranked)),
        means_sql=asked.averaging(params, ranked=shown_ranked),
    )


def _question(row: dict[str, Any]) -> tuple[str, str]:
    return row["prompt"], row["target"]


def _given(explorer: Explorer) -> QueryChoices:
    return QueryChoices(
        query_sets=[row["query_set"] for row in explorer.rows(_SETS)],
        methods=[row["method"] for row in explorer.rows(_METHODS)],
        fields=[row["field"] for row in explorer.rows(_FIELDS)],
    )


PAGE = Page(
    name="queries",
    path="/queries",
    title="Queries",
    summary="Queries with what their traces found, and means over all of them",
    nav="Queries",
    params=WantedQueries,
    data=QueriesView,
    load=_load,
)

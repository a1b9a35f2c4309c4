"""What is told of a lake: SQL, reports, exports; and what other tools tell."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from proponent.observe.events import span
from proponent.schema.errors import NotFoundError
from proponent.schema.settings import ExchangeSettings, ReportSettings, SqlSettings, imported_method
from proponent.store.commit import finish_interrupted
from proponent.store.place import LakePath, given_options, lake_path, move_in
from proponent.version import __version__

from .base import LakeBase, Progress, StrPath, ignore

if TYPE_CHECKING:
    from proponent.query.explain import TokenShare
    from proponent.query.questions import Ask
    from proponent.query.report import Report
    from proponent.query.report.verify import Verification
    from proponent.query.results import Result, Stream
    from proponent.query.session import Session


class Telling(LakeBase):
    """Answers for people and for other programs."""

    def sql(
        self,
        query: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        at: int | None = None,
        **settings: Any,
    ) -> "Result":
        """Run one SELECT over the lake, by default at its newest snapshot. Parameters bind to `?` or `$name`.

        `settings` are those of SqlSettings: memory_limit, time_limit_s, max_rows, max_bytes. Raises SqlError for a
        statement that is refused, fails or takes more than they allow.
        """
        chosen = SqlSettings(**settings)
        with self._session_at(at, settings=chosen) as session:
            return session.sql(query, parameters, settings=chosen)

    def stream(
        self,
        query: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        at: int | None = None,
        **settings: Any,
    ) -> "Stream":
        """Run one SELECT as `sql` does, and read its rows as they come: for results larger than memory."""
        chosen = SqlSettings(**settings)
        with self._session_at(at, settings=chosen) as session:
            return session.stream(query, parameters, settings=chosen)

    def report(
        self,
        trace_ids: str | Sequence[str],
        path: StrPath,
        *,
        templates: StrPath | None = None,
        progress: Progress = ignore,
        **settings: Any,
    ) -> LakePath:
        """Write a report of some traces, as HTML, Markdown or JSON by the file's suffix; return its path.

        A folder, or a name that ends in a slash, gets an index and a page for each question. A URL is that of an object
        store, with the options of the lake if that lies in one. `settings` are those of ReportSettings: title, compare,
        tokens, groups, words. `templates` is a folder of templates that stand in place of those of reports. `progress`
        is told 1 for each trace. Raises NotFoundError, InputError and SettingsError.
        """
        from proponent.query.report.filling import require_templates
        from proponent.query.report.write import is_folder, require_form, write_report

        if "://" in str(path):
            place = lake_path(str(path), given_options(self.store.root))
            with TemporaryDirectory(prefix="proponent-") as scratch:
                name = f"{scratch}/{place.name}{'/' if str(path).endswith('/') else ''}"
                made_here = self.report(trace_ids, name, templates=templates, progress=progress, **settings)
                move_in(Path(str(made_here)), place)
            return place
        ids = [trace_ids] if isinstance(trace_ids, str) else list(trace_ids)
        own = None if templates is None else Path(templates)
        folder = is_folder(Path(path), named_as_one=str(path).endswith("/"))
        require_templates(own)
        require_form(Path(path), folder=folder)
        made = self._report(ids, ReportSettings(**settings), progress)
        return write_report(made, Path(path), templates=own, folder=folder)

    def verify_report(
        self, path: StrPath, *, templates: StrPath | None = None, progress: Progress = ignore
    ) -> "Verification":
        """Make a report again and compare it with the file or folder: what changed in it, or was withdrawn since.

        Raises InputError for a file that is no report.
        """
        from proponent.query.report.verify import verify

        return verify(
            Path(path),
            lambda ids, settings: self._report(ids, settings, progress),
            templates=None if templates is None else Path(templates),
        )

    def traces_of_set(self, query_set: str) -> list[str]:
        """Return the ids of the traces of a query set, as they were asked; an answer's id names that of its segments.

        Segments are in the order of the answer. Raises NotFoundError when there are none.
        """
        rows = self.sql(
            "SELECT trace_id, TRY_CAST(metadata -> 'segment_of' -> $answer ->> 'segment' AS INTEGER) AS segment "
            "FROM traces JOIN queries USING (query_id) WHERE query_set = $set OR segment IS NOT NULL "
            "ORDER BY segment, traces.created_at, trace_id",
            {"set": query_set, "answer": query_set if query_set.isalnum() else "none"},  # else it may be a path
        )
        if not (ids := [row.trace_id for row in rows]):
            raise NotFoundError(
                f"no trace is of a query set {query_set!r}; list them with: SELECT DISTINCT query_set FROM queries"  # noqa: S608
            )
        return ids

    def _report(self, ids: Sequence[str], settings: ReportSettings, progress: Progress) -> "Report":
        from proponent.query.report.build import build_report

        with span("report", traces=len(ids)):
            return build_report(
                self.store, self._current_session(), ids, settings, explain=self._token_shares, progress=progress
            )

    def _token_shares(self, session: "Session", trace: str, passage: str) -> "tuple[TokenShare, ...]":
        from proponent.query.explain import explain

        trace_id, row = self._trace_of_gradients(trace)
        loaded = self._encoders.encoder(row)
        return explain(self.store, session, trace_id, passage, encoder_row=row, encoder=loaded).tokens

    def export(
        self,
        path: StrPath,
        *,
        sql: str | None = None,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        traces: str | Sequence[str] = (),
        at: int | None = None,
        texts: bool = True,
        form: str | None = None,
        **exchange: Any,
    ) -> dict[str, int]:
        """Write the lake, or the rows of a query or of traces, into a file that others read; return counts of rows.

        The suffix names the form unless `form` does: a `.duckdb` file has the whole lake, without vectors and, unless
        `texts`, without the texts of passages; `.csv .json .jsonl .md .parquet .arrow .xlsx` have rows. Results may be
        larger than memory. Forms of other tools are `viewer` and `trec` (a run) of traces, `qrels` of rows with
        query_id, passage_id and relevance or, without any, of the passages that queries' metadata names, and
        `datasets`, a folder of rows. `exchange` are settings of ExchangeSettings: query_id, side, tag. What is written
        appears whole or not at all. Raises InputError for what a form cannot hold.
        """
        from proponent.query.export.exports import export

        names = [traces] if isinstance(traces, str) else traces
        with self._session_at(at) as session:
            return export(
                self.store, session, Path(path), sql=sql, parameters=parameters, traces=names, texts=texts, form=form,
                exchange=ExchangeSettings(**exchange), version=__version__,
            )  # fmt: skip

    def import_traces(
        self,
        file: StrPath,
        *,
        name: str,
        form: str | None = None,
        queries: Iterable["Mapping[str, Any] | Ask"] = (),
        query_set: str | None = None,
        skip_unknown: bool = False,
        **exchange: Any,
    ) -> dict[str, Any]:
        """Store the results of another tool as traces of method `imported:NAME`; return their ids, and counts of hits.

        The form is `viewer` or `trec`, by default what the suffix says. Passages are known by their ids, else by
        exactly their text; with `skip_unknown` hits of others are left out. `queries` are what the ids of a TREC run
        stand for, where the lake does not know them: their `id`, or the field that `query_id` names. `exchange` are
        settings of ExchangeSettings: query_id, side. Raises InputError, which names the line, and changes nothing.
        """
        from proponent.query.imported import import_traces
        from proponent.query.questions import resolve_all

        asked = resolve_all(queries, None, query_set=query_set, average=False)
        finish_interrupted(self.store)
        return import_traces(
            self.store,
            self._current_session(),
            Path(file),
            form=form,
            method=imported_method(name),
            exchange=ExchangeSettings(**exchange),
            asked=asked,
            query_set=query_set,
            skip_unknown=skip_unknown,
        )

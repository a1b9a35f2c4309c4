"""Questions to a lake: traces, groups, explanations, full gradients."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proponent.encoders import encoder_row
from proponent.observe.events import span
from proponent.schema.errors import SettingsError
from proponent.schema.settings import (
    BM25,
    HYBRID,
    EvaluationSettings,
    GroupSettings,
    TailPatchSettings,
    TraceSettings,
)
from proponent.store.commit import finish_interrupted
from proponent.store.snapshots import get_snapshot

from .base import LakeBase, Progress, StrPath, ignore

if TYPE_CHECKING:
    from proponent.encode.encoder import Encoder
    from proponent.query.evaluate.results import Evaluation
    from proponent.query.evaluate.study import Tell
    from proponent.query.explain import Explanation
    from proponent.query.questions import Ask, Question
    from proponent.query.results import Result
    from proponent.query.search import SoFar
    from proponent.query.segments import TracedAnswer


def _question(
    prompt: str | Sequence[Mapping[str, str]], target: str | Sequence[str] | None, instead: str | None, chat: bool
) -> dict[str, Any]:
    """Return a question as a row of a file of queries."""
    return {
        "prompt" if isinstance(prompt, str) else "messages": prompt,
        "target" if target is None or isinstance(target, str) else "targets": target,
        "instead": instead,
        "chat": chat or not isinstance(prompt, str),
    }


class Asking(LakeBase):
    """Questions that a model is asked, or was."""

    def trace(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        target: str | Sequence[str] | None = None,
        *,
        instead: str | None = None,
        chat: bool = False,
        encoder: str | None = None,
        at: int | None = None,
        **settings: Any,
    ) -> "Result":
        """Find the passages that moved the model towards or away from a target; without one, the model completes.

        Several targets are one question whose loss is the mean of theirs. `instead` asks why the target and not that.
        `chat` puts the prompt into the model's chat template as a user's turn; a list of messages (`role` and
        `content`) goes into it as it is. `settings` are those of TraceSettings: k, method, curvature, filter,
        approximate, min_recall, fuse, rank_constant, memory, threads. Method `bm25` compares words and needs a target,
        but no encoder. `at` is the snapshot that is searched, by default the newest. Returns rows of relation
        `influence`.
        """
        question = _question(prompt, target, instead, chat)
        return self.hits(self.trace_all([question], encoder=encoder, at=at, **settings), at=at)

    def trace_all(
        self,
        questions: Iterable["tuple[str, str | None] | Mapping[str, Any] | Ask"],
        *,
        encoder: str | None = None,
        query_set: str | None = None,
        average: bool = False,
        at: int | None = None,
        progress: Progress = ignore,
        scanned: Progress = ignore,
        so_far: "SoFar | None" = None,
        **settings: Any,
    ) -> list[str]:
        """Trace many questions in one pass over the encodings; return the traces' ids in order.

        A question is a pair of prompt and target, or has the fields of a file of queries, of which those that ask
        nothing are kept as the query's metadata. With `average` all of them are one trace, whose score of a passage is
        the mean of the scores that each question alone gives. `at` is the snapshot that is searched, without what was
        withdrawn since. `progress` is told questions that were encoded, `scanned` texts that were scored; what either
        raises ends the pass, and nothing is stored. `so_far` is called again and again while texts are scored, with a
        function that gives the hits so far of each question that was not stored before.
        """
        from proponent.query.questions import resolve_all

        def resolve(encoder: "Encoder | None") -> "list[Question]":
            return resolve_all(questions, encoder, query_set=query_set, average=average)

        chosen = TraceSettings(encoder=encoder, **settings)
        return self._trace_resolved(resolve, chosen, at=at, progress=progress, scanned=scanned, so_far=so_far)

    def trace_segments(
        self,
        prompt: str,
        target: str | None = None,
        *,
        segments: str | int = "sentences",
        encoder: str | None = None,
        query_set: str | None = None,
        at: int | None = None,
        progress: Progress = ignore,
        **settings: Any,
    ) -> "TracedAnswer":
        """Trace a long answer in segments, each after the prompt and all of the answer that comes before it.

        `segments` are `sentences`, or so many words each. Without a target the model completes the line, with 64 tokens
        at most. All segments share one pass over the encodings; `settings` are those of `trace`. The queries' metadata
        say under `segment_of` which answer they are of, and where in it. Raises EncodingError, before anything is
        stored, for a segment that no longer fits into the model's context, and SettingsError for segments of another
        kind.
        """
        from proponent.query.segments import TracedAnswer, answer_id, in_segments, resolve_whole
        from proponent.segments import segment_ends, segment_rule

        rule = segment_rule(segments)
        asked: list[Question] = []

        def resolve(encoder: "Encoder | None") -> "list[Question]":
            whole = resolve_whole(prompt, target, encoder, query_set=query_set)
            asked.extend(in_segments(whole, segment_ends(whole.target, rule)))
            return asked

        ids = self._trace_resolved(resolve, TraceSettings(encoder=encoder, **settings), at=at, progress=progress)
        return TracedAnswer(answer_id(asked), ids)

    def _trace_resolved(
        self,
        resolve: "Callable[[Encoder | None], list[Question]]",
        chosen: TraceSettings,
        *,
        at: int | None,
        progress: Progress,
        scanned: Progress = ignore,
        so_far: "SoFar | None" = None,
    ) -> list[str]:
        """Trace the questions that `resolve` gives for an encoder, or for none in a search by words."""
        from proponent.encode.methods import METHODS
        from proponent.query.hybrid import trace_hybrid
        from proponent.query.lexical import trace_words
        from proponent.query.trace import describe_again, trace

        if chosen.method == BM25:
            asked = resolve(None)
            finish_interrupted(self.store)
            with self._session_at(at) as session, span("trace", method=chosen.method, questions=len(asked)):
                ids = trace_words(self.store, session, session.at, asked, chosen)
            describe_again(self.store, asked)
            return ids
        row = encoder_row(self.store, chosen.encoder, with_moments=METHODS[chosen.influence].needs_moments)
        loaded = self._encoders.encoder(row)
        asked = resolve(loaded)
        finish_interrupted(self.store)
        search = trace_hybrid if chosen.method == HYBRID else trace
        with self._session_at(at) as session, span("trace", method=chosen.method, questions=len(asked)):
            ids = search(
                self.store,
                session,
                session.at,
                asked,
                chosen,
                encoder_row=row,
                encoder=loaded,
                progress=progress,
                scanned=scanned,
                so_far=so_far,
            )
        describe_again(self.store, asked)
        return ids

    def group_influence(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        target: str | Sequence[str] | None = None,
        *,
        by: str = "source",
        instead: str | None = None,
        chat: bool = False,
        **settings: Any,
    ) -> "Result":
        """Return how much whole groups of passages influence an answer: all their passages, and not only the hits.

        Groups are `by` source, entity, month or corpus. A question is asked as of `trace`, and `settings` are those of
        `group_influence_all`, which says what is returned.
        """
        return self.group_influence_all([_question(prompt, target, instead, chat)], by=by, **settings)

    def group_influence_all(
        self,
        questions: Iterable["tuple[str, str | None] | Mapping[str, Any] | Ask"],
        *,
        by: str = "source",
        names: Iterable[str | None] | None = None,
        k: int | None = None,
        at: int | None = None,
        encoder: str | None = None,
        average: bool = False,
        progress: Progress = ignore,
        **settings: Any,
    ) -> "Result":
        """Return the influence of groups on many questions, which are asked as of `trace_all`; nothing is stored.

        Columns are `prompt, target, kind, name` (None: passages without a source or date), `n_passages`, `influence`
        (the sum of their scores), `mean` (of a passage), `share` (of all groups' influences without their signs; none
        where groups overlap, as entities do), `passage_share` (of all passages) and `others`: in a last row, how many
        groups have no sum of their own. `names` are the only groups wanted, those without a sum among them. `k` leaves
        that many of highest and of lowest influence. `settings` are method and curvature, as of `trace`.
        """
        from proponent.encode.methods import METHODS
        from proponent.query.groups import groups_for
        from proponent.query.questions import resolve_all
        from proponent.query.results import Result

        wanted = GroupSettings(by=by, names=None if names is None else tuple(names), k=k)
        chosen = TraceSettings(encoder=encoder, **settings)
        if chosen.method not in METHODS:
            raise SettingsError(f"groups are weighed by one of {', '.join(METHODS)}, not by {chosen.method!r}")
        row = encoder_row(self.store, encoder, with_moments=METHODS[chosen.method].needs_moments)
        loaded = self._encoders.encoder(row)
        asked = resolve_all(questions, loaded, query_set=None, average=average)
        found = groups_for(
            self.store, self._state(at), asked, wanted, chosen, encoder_row=row, encoder=loaded, progress=progress
        )
        return Result(found)

    def group_influence_of(
        self,
        trace: str,
        *,
        by: str = "source",
        names: Iterable[str | None] | None = None,
        k: int | None = None,
        at: int | None = None,
    ) -> "Result":
        """Return the influence of groups on what a stored trace asked, without loading the model.

        `trace` is an id, the beginning of one, or `last`; its method and curvature are taken, and its filter is not.
        """
        from proponent.query.groups import groups_for_trace
        from proponent.query.results import Result
        from proponent.query.stored import resolve_trace

        wanted = GroupSettings(by=by, names=None if names is None else tuple(names), k=k)
        return Result(groups_for_trace(self.store, self._state(at), resolve_trace(self.store, trace), wanted))

    def complete(
        self, prompt: str, *, encoder: str | None = None, chat: bool = False, max_tokens: int | None = None
    ) -> str:
        """Return the model's greedy completion of a prompt, or its answer in a chat."""
        from proponent.encode.tokens import chat_prompt, completion

        loaded = self._encoders.encoder(encoder_row(self.store, encoder))
        checkpoint = loaded.projector.checkpoint
        text = chat_prompt(checkpoint.tokenizer, [{"role": "user", "content": prompt}]) if chat else prompt
        return completion(
            checkpoint.model,
            checkpoint.tokenizer,
            text,
            rendered=chat,
            max_tokens=max_tokens,
            context_length=loaded.context_length,
        )

    def explain(self, trace: str, passage: str) -> "Explanation":
        """Split the score of a passage under a stored trace into shares of its tokens.

        `trace` is an id, the beginning of one, or `last`; `passage` is an id, or the rank of a proponent. Raises
        NotFoundError for a passage that the trace's encoder has not encoded, SettingsError for a trace whose scores
        are not of gradients.
        """
        from proponent.query.explain import explain

        trace_id, row = self._trace_of_gradients(trace)
        loaded = self._encoders.encoder(row)
        return explain(self.store, self._current_session(), trace_id, passage, encoder_row=row, encoder=loaded)

    def recompute(self, trace: str, n: int | None = None, *, progress: Progress = ignore) -> list[dict[str, Any]]:
        """Score a stored trace's n first hits of each side again with full gradients; return how their order changes.

        By default all of its hits. `tau` is Kendall's tau-b of the trace's order and that of gradients in float32
        without codes, curvature and projection; `tau_codes`, `tau_curvature` and `tau_projection` tell what each of
        these changes. The passages' scores are in relation `recomputed`. Raises SettingsError for a trace whose scores
        are not of gradients.
        """
        from proponent.query.recompute import describe, recompute

        trace_id, row = self._trace_of_gradients(trace)
        loaded, session = self._encoders.in_full_precision(row), self._current_session()
        rows = recompute(self.store, session, trace_id, n=n, encoder_row=row, encoder=loaded, progress=progress)
        return [describe(row) for row in rows]

    def hits(
        self, trace_ids: Sequence[str], *, at: int | None = None, fused: bool = False, recomputed: int | None = None
    ) -> "Result":
        """Return the rows of relation `influence` for some traces, proponents first, best first.

        Passages and documents are as they are at present, or as they were at snapshot `at`. `fused` adds the rank and
        score that hits of hybrid traces have in each of the two orders, `recomputed` what `recompute` found for so
        many hits of each side.
        """
        from proponent.query.hits import hits_of

        then = None if at is None else get_snapshot(self.store.catalog, at)
        return hits_of(self.store, self.snapshot, trace_ids, documents=then, fused=fused, recomputed=recomputed)

    def evaluate(
        self,
        facts: "StrPath | Iterable[StrPath] | Iterable[Mapping[str, Any]]",
        *,
        output: StrPath | None = None,
        at: int | None = None,
        tell: "Tell | None" = None,
        tail_patch: int | TailPatchSettings = 0,
        **settings: Any,
    ) -> "Evaluation":
        """Measure whether methods find the passages that state facts, and whether what they find moves the model.

        Facts are a file, or several, or rows with the fields of one (`docs/evaluate.md`); `builtin:NAME` is a set that
        comes with the package. `settings` are those of EvaluationSettings: methods, filter, depth, seed, resamples,
        confidence, and retraining, which says what models are trained anew for, in processes of their own or on the
        nodes of the lake's cluster. `tail_patch` is on how many facts of each kind influence is measured, or its
        settings; a cluster takes these steps, too. The folder `output` gets results.json, results.md and results.html,
        and what it has already is not computed again. Raises InputError for facts that are none, and what `trace_all`
        raises.
        """
        from proponent.evaluated import facts_of
        from proponent.query.evaluate.results import Evaluation
        from proponent.query.evaluate.study import evaluate, tell_nobody

        asked = facts_of(facts)
        patching = TailPatchSettings(facts=tail_patch) if isinstance(tail_patch, int) else tail_patch
        chosen = EvaluationSettings(tail_patch=patching, **settings)
        folder = None if output is None else Path(output)
        with self._session_at(at) as session:
            found = evaluate(
                self.store,
                session,
                session.at,
                asked,
                chosen,
                loader=self._encoders,
                output=folder,
                tell=tell or tell_nobody,
            )
        evaluation = Evaluation(found)
        if folder is not None:
            evaluation.write(folder)
        return evaluation

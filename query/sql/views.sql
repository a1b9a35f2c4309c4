-- Views over the relations that the session registers. Every statement is one relation that people query.

-- encodings: one row for every passage that an encoder has encoded; passages of equal text share an encoding.
CREATE VIEW encodings AS
SELECT stored.encoder, passages.passage_id, stored.norm, stored.loss, stored.n_tokens
FROM stored_encodings AS stored
JOIN passages USING (text_hash);

-- near_duplicates: those whose two documents are both there, and still what they were when they were compared.
CREATE VIEW near_duplicates AS
SELECT stored.doc_id, stored.of_doc_id, stored.similarity
FROM stored_near_duplicates AS stored
SEMI JOIN documents ON documents.doc_id = stored.doc_id AND documents.content_hash = stored.content_hash
SEMI JOIN documents AS originals
    ON originals.doc_id = stored.of_doc_id AND originals.content_hash = stored.of_content_hash;

-- of_hits: hits, and their passages, documents and mentions. All there are, until the session finds those of hits.
CREATE SCHEMA of_hits;
CREATE VIEW of_hits.hits AS FROM main.hits;
CREATE VIEW of_hits.passages AS FROM main.passages;
CREATE VIEW of_hits.documents AS FROM main.documents;
CREATE VIEW of_hits.mentions AS FROM main.mentions;

-- influence: every hit with what it is a hit for, and with its passage and document.
CREATE VIEW influence AS
SELECT
    hits.trace_id,
    traces.query_id,
    queries.prompt,
    queries.target,
    queries.chat,
    queries.query_set,
    queries.metadata AS query_metadata,
    traces.method,
    traces.encoder,
    traces.curvature,
    traces.filter,
    traces.exact,
    traces.snapshot,
    hits.side,
    hits.rank,
    hits.score,
    hits.percentile,
    (hits.score - traces.score_mean) / traces.score_sd AS z_score,
    hits.passage_id,
    passages.text,
    passages.ordinal,
    documents.doc_id,
    documents.doc_key,
    documents.corpus,
    documents.source,
    documents.published,
    documents.published_precision,
    documents.title,
    documents.url,
    documents.author,
    documents.language,
    documents.license,
    documents.trained_on,
    documents.metadata,
    coalesce(named.entities, []) AS entities
FROM of_hits.hits AS hits
JOIN traces USING (trace_id)
JOIN queries USING (query_id)
LEFT JOIN of_hits.passages AS passages USING (passage_id)
LEFT JOIN of_hits.documents AS documents USING (doc_id)
LEFT JOIN (
    SELECT passage_id, list(DISTINCT entity ORDER BY entity) AS entities
    FROM of_hits.mentions
    WHERE passage_id IN (SELECT passage_id FROM of_hits.hits)
    GROUP BY passage_id
) AS named USING (passage_id);

-- fused: every hit of a hybrid trace with the ranks and scores that it joins; null where a part does not list it.
CREATE VIEW fused AS
SELECT
    hits.trace_id,
    hits.rank,
    hits.passage_id,
    hits.score,
    traces.settings ->> '$.fused.method' AS influence_method,
    pushed.trace_id AS influence_trace,
    pushed.rank AS influence_rank,
    pushed.score AS influence_score,
    matched.trace_id AS bm25_trace,
    matched.rank AS bm25_rank,
    matched.score AS bm25_score
FROM hits
JOIN traces ON traces.trace_id = hits.trace_id AND traces.method = 'hybrid'
LEFT JOIN hits AS pushed
    ON pushed.trace_id = traces.settings ->> '$.fused.influence'
    AND pushed.side = 'proponent'
    AND pushed.passage_id = hits.passage_id
LEFT JOIN hits AS matched
    ON matched.trace_id = traces.settings ->> '$.fused.bm25'
    AND matched.side = 'proponent'
    AND matched.passage_id = hits.passage_id;

-- recomputed: every hit that was scored again with full gradients, with the scores on the way there.
CREATE VIEW recomputed AS
SELECT
    again.trace_id,
    again.side,
    again.n,
    hits.rank,
    hits.passage_id,
    hits.score,
    (again.one ->> 'exact')::DOUBLE AS score_exact,
    (again.one ->> 'unwhitened')::DOUBLE AS score_unwhitened,
    (again.one ->> 'full')::DOUBLE AS score_full
FROM (
    SELECT trace_id, side, n, unnest(scores::JSON[]) AS one
    FROM recomputations
) AS again
JOIN hits
    ON hits.trace_id = again.trace_id AND hits.side = again.side AND hits.passage_id = again.one ->> 'passage_id';

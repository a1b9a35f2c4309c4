SELECT
    side,
    passage_id,
    a.rank AS rank_a,
    b.rank AS rank_b,
    b.rank - a.rank AS rank_change,
    a.score AS score_a,
    b.score AS score_b,
    (a.score - of_a.score_mean) / of_a.score_sd AS z_score_a,
    (b.score - of_b.score_mean) / of_b.score_sd AS z_score_b,
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
    documents.metadata
FROM (SELECT * FROM hits WHERE trace_id = $a) AS a
FULL JOIN (SELECT * FROM hits WHERE trace_id = $b) AS b USING (side, passage_id)
LEFT JOIN traces AS of_a ON of_a.trace_id = $a
LEFT JOIN traces AS of_b ON of_b.trace_id = $b
LEFT JOIN of_hits.passages AS passages USING (passage_id)
LEFT JOIN of_hits.documents AS documents USING (doc_id)
ORDER BY side DESC, least(a.rank, b.rank), a.rank NULLS LAST, passage_id;

SELECT
    passages.passage_id,
    passages.text,
    earlier.text AS before,
    later.text AS after,
    documents.doc_id,
    documents.doc_key,
    documents.corpus,
    documents.source,
    documents.published,
    documents.published_precision,
    documents.title,
    documents.url,
    documents.license,
    documents.trained_on,
    coalesce(named.entities, []) AS entities
FROM passages
JOIN documents USING (doc_id)
LEFT JOIN passages AS earlier ON earlier.doc_id = passages.doc_id AND earlier.ordinal = passages.ordinal - 1
LEFT JOIN passages AS later ON later.doc_id = passages.doc_id AND later.ordinal = passages.ordinal + 1
LEFT JOIN (
    SELECT passage_id, list(DISTINCT entity ORDER BY entity) AS entities
    FROM mentions
    WHERE passage_id IN (SELECT unnest($passage_ids))
    GROUP BY passage_id
) AS named ON named.passage_id = passages.passage_id
WHERE passages.passage_id IN (SELECT unnest($passage_ids));

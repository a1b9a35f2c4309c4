-- Passages that a search may return, for filters that name columns of documents.
-- The filter's checked predicate takes the place of the last line.
SELECT passage_id, text_hash, doc_id
FROM (
    SELECT documents.* EXCLUDE (doc_id), passages.*
    FROM passages
    JOIN documents USING (doc_id)
)
WHERE true

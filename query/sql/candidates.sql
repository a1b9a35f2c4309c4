-- Passages that a search may return. The filter's checked predicate takes the place of the last line.
SELECT passage_id, text_hash, doc_id
FROM passages
WHERE true

CREATE VIEW placed AS
SELECT
    passages.passage_id,
    documents.corpus,
    documents.source,
    -- What is no more exact than a year is a group of its own, as is what has no date.
    left(
        documents.published::VARCHAR, CASE WHEN documents.published_precision IN ('day', 'month') THEN 7 ELSE 4 END
    ) AS month,
    vectors.vector_id,
    vectors.position,
    vectors.factor
FROM passages
JOIN vectors USING (text_hash)
JOIN documents USING (doc_id)
WHERE doc_id NOT IN (SELECT doc_id FROM hidden);
CREATE VIEW members AS
SELECT 'all' AS kind, NULL::VARCHAR AS name, vector_id, position, factor FROM placed
UNION ALL
SELECT 'corpus', corpus, vector_id, position, factor FROM placed
UNION ALL
SELECT 'source', source, vector_id, position, factor FROM placed
UNION ALL
SELECT 'month', month, vector_id, position, factor FROM placed
UNION ALL
SELECT 'entity', named.entity, placed.vector_id, placed.position, placed.factor
FROM placed
JOIN (SELECT DISTINCT passage_id, entity FROM mentions SEMI JOIN passages USING (passage_id)) AS named
    USING (passage_id);

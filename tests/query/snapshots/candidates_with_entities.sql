SELECT passage_id, text_hash, doc_id
FROM (
    SELECT documents.* EXCLUDE (doc_id), passages.*, coalesce(named.entities, []) AS entities
    FROM passages
    JOIN documents USING (doc_id)
    LEFT JOIN (
        SELECT passage_id, list(DISTINCT entity ORDER BY entity) AS entities FROM mentions GROUP BY passage_id
    ) AS named USING (passage_id)
)
WHERE true;

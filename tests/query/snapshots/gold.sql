WITH texts AS (
    SELECT named.query_id, passages.text_hash
    FROM (SELECT unnest($queries) AS query_id, unnest($passages) AS passage_id) AS named
    JOIN passages USING (passage_id)
    UNION
    SELECT named.query_id, passages.text_hash
    FROM (SELECT unnest($doc_queries) AS query_id, unnest($doc_keys) AS doc_key) AS named
    JOIN documents USING (doc_key)
    JOIN passages USING (doc_id)
)
SELECT texts.query_id, passages.passage_id
FROM texts
JOIN passages USING (text_hash)
ORDER BY texts.query_id, passages.passage_id;

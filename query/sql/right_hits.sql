-- The first proponent of each trace that is one of the passages named for its query.
SELECT hits.trace_id, min(hits.rank) AS rank
FROM hits
JOIN traces USING (trace_id)
JOIN (SELECT unnest($queries) AS query_id, unnest($passages) AS passage_id) AS named
    ON named.query_id = traces.query_id AND named.passage_id = hits.passage_id
WHERE hits.side = 'proponent'
GROUP BY hits.trace_id

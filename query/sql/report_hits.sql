-- Hits of one trace, proponents before opponents, best first.
SELECT * EXCLUDE (trace_id)
FROM hits
WHERE trace_id = $trace_id
ORDER BY side DESC, rank;

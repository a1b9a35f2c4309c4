SELECT * EXCLUDE (trace_id)
FROM hits
WHERE trace_id = $trace_id
ORDER BY side DESC, rank;

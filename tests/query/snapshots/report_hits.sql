SELECT side, rank, passage_id, score, percentile
FROM hits
WHERE trace_id = $trace_id
ORDER BY side DESC, rank;

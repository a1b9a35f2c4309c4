SELECT influence.*, fused.* EXCLUDE (trace_id, passage_id, rank, score)
FROM influence
JOIN fused USING (trace_id, passage_id)
WHERE trace_id IN (SELECT unnest($ids))
ORDER BY list_position($ids, trace_id), influence.rank;

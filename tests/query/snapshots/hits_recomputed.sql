SELECT influence.*, recomputed.* EXCLUDE (trace_id, side, n, passage_id, rank, score)
FROM influence
LEFT JOIN (SELECT * FROM recomputed WHERE n = $n) AS recomputed USING (trace_id, side, passage_id)
WHERE trace_id IN (SELECT unnest($ids))
ORDER BY list_position($ids, trace_id), side DESC, influence.rank;

SELECT *
FROM influence
WHERE trace_id IN (SELECT unnest($ids))
ORDER BY list_position($ids, trace_id), side DESC, rank;

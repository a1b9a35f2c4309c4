-- Hits of one trace with the neighbouring passages of their documents, best first, proponents before opponents.
SELECT
    influence.* EXCLUDE (prompt, target),
    earlier.text AS before,
    later.text AS after
FROM influence
LEFT JOIN passages AS earlier ON earlier.doc_id = influence.doc_id AND earlier.ordinal = influence.ordinal - 1
LEFT JOIN passages AS later ON later.doc_id = influence.doc_id AND later.ordinal = influence.ordinal + 1
WHERE influence.trace_id = $trace_id
ORDER BY side DESC, rank;

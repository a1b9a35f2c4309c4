-- Hits of one trace, proponents before opponents, best first.
SELECT hits.* EXCLUDE (trace_id), (hits.score - traces.score_mean) / traces.score_sd AS z_score
FROM hits
JOIN traces USING (trace_id)
WHERE trace_id = $trace_id
ORDER BY side DESC, rank;

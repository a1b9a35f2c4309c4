SELECT
    snapshots.snapshot_id AS snapshot,
    runs.started_at,
    runs.kind,
    coalesce(
        runs.settings ->> 'corpus', runs.settings ->> 'encoder', runs.settings ->> 'name', runs.settings ->> 'reason',
        runs.settings ->> 'where'
    ) AS subject,
    runs.status,
    runs.counts,
    runs.error,
    runs.run_id
FROM runs
LEFT JOIN (SELECT run_id, max(snapshot_id) AS snapshot_id FROM snapshots GROUP BY run_id) AS snapshots USING (run_id)
WHERE runs.kind <> 'trace'
ORDER BY runs.started_at DESC, runs.run_id;

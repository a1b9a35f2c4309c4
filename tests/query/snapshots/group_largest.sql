SELECT name, n_passages, count(*) OVER () AS n_groups
FROM sizes
WHERE kind = $kind
ORDER BY n_passages DESC, name NULLS LAST
LIMIT $most;

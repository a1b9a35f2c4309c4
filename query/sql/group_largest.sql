-- The groups of a kind that most passages belong to, and how many groups there are.
SELECT name, n_passages, count(*) OVER () AS n_groups
FROM sizes
WHERE kind = $kind
ORDER BY n_passages DESC, name NULLS LAST
LIMIT $most;

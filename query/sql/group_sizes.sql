-- The groups of a kind that most passages belong to, and how many groups there are.
SELECT name, count(*) AS n_passages, count(*) OVER () AS n_groups
FROM present.members
WHERE kind = $kind
GROUP BY name
ORDER BY n_passages DESC, name NULLS LAST
LIMIT $most;

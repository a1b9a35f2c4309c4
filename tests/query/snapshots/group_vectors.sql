SELECT number, factor, count(*) AS n, max(position) AS position
FROM whole.members
JOIN chosen ON chosen.name IS NOT DISTINCT FROM members.name
WHERE kind = $kind
GROUP BY number, vector_id, factor;

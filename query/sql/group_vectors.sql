-- The vectors of all passages of chosen groups, and how many passages have each.
SELECT number, factor, count(*) AS n, max(position) AS position
FROM whole.members
JOIN chosen ON chosen.name IS NOT DISTINCT FROM members.name
WHERE kind = $kind
GROUP BY number, vector_id, factor;

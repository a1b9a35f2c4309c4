-- How often vectors have to be added to the sums of chosen groups, or taken off them (n < 0), to get from one snapshot
-- to another. A group without a sum is added up from nothing.
SELECT
    number,
    factor,
    sum(n)::BIGINT AS n,
    max(position) FILTER (n > 0) AS position,
    max(position) FILTER (n < 0) AS former_position
FROM (
    SELECT name, vector_id, position, factor, 1 AS n FROM present.members WHERE kind = $kind
    UNION ALL
    SELECT name, vector_id, position, factor, -1 AS n FROM former.members WHERE kind = $kind
) AS moved
JOIN chosen ON chosen.name IS NOT DISTINCT FROM moved.name
WHERE moved.n > 0 OR chosen.has_sum
GROUP BY number, vector_id, factor
HAVING sum(n) <> 0;

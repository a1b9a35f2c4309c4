CREATE TABLE main.moves AS
SELECT
    kind,
    name,
    factor,
    sum(n)::BIGINT AS n,
    coalesce(max(position) FILTER (n > 0), -1) AS position,
    coalesce(max(position) FILTER (n < 0), -1) AS former_position
FROM (
    SELECT kind, name, vector_id, position, factor, 1 AS n FROM present.members
    UNION ALL
    SELECT kind, name, vector_id, position, factor, -1 AS n FROM former.members
)
GROUP BY kind, name, vector_id, factor
HAVING sum(n) <> 0;

CREATE TABLE main.sizes AS
SELECT kind, name, sum(n)::BIGINT AS n_passages
FROM (
    SELECT kind, name, n_passages AS n FROM former_sizes
    UNION ALL
    SELECT kind, name, n FROM moves
)
GROUP BY kind, name
HAVING sum(n) > 0;

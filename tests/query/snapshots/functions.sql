CREATE MACRO trace(
    prompt, target := NULL, k := 10, filter := NULL, instead := NULL, method := 'trackstar', curvature := NULL,
    encoder := NULL, chat := false, approximate := false
) AS TABLE
SELECT hit.*
FROM (
    SELECT unnest(_trace(
        prompt::VARCHAR, target::VARCHAR, k::BIGINT, filter::VARCHAR, instead::VARCHAR, method::VARCHAR,
        curvature::VARCHAR, encoder::VARCHAR, chat::BOOLEAN, approximate::BOOLEAN
    )) AS hit
);
CREATE MACRO proponents(query, k := 10, filter := NULL) AS TABLE
SELECT hit.* FROM (SELECT unnest(_proponents(query::VARCHAR, k::BIGINT, filter::VARCHAR)) AS hit);
CREATE MACRO opponents(query, k := 10, filter := NULL) AS TABLE
SELECT hit.* FROM (SELECT unnest(_opponents(query::VARCHAR, k::BIGINT, filter::VARCHAR)) AS hit);
CREATE MACRO influence(query, passage_id) AS _influence(query::VARCHAR, passage_id::VARCHAR);
CREATE MACRO group_influence(query, kind := 'source') AS TABLE
SELECT weighed.* FROM (SELECT unnest(_group_influence(query::VARCHAR, kind::VARCHAR)) AS weighed);
CREATE MACRO compare(trace_a, trace_b) AS TABLE
SELECT both_hits.* FROM (SELECT unnest(_compare(trace_a::VARCHAR, trace_b::VARCHAR)) AS both_hits);
COMMENT ON MACRO TABLE trace IS 'Asks the model a question and returns its proponents and opponents; nothing is stored.';
COMMENT ON MACRO TABLE proponents IS 'Passages of highest score for a stored trace or query.';
COMMENT ON MACRO TABLE opponents IS 'Passages of lowest score for a stored trace or query.';
COMMENT ON MACRO influence IS 'Score of a passage for a stored trace or query; null for one that is not encoded.';
COMMENT ON MACRO TABLE group_influence IS 'Influence of every source, entity, month or corpus, all its passages counted.';
COMMENT ON MACRO TABLE compare IS 'Hits of two stored traces side by side; null where a trace does not list the passage.';

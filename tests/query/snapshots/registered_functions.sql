-- table_macro compare(trace_a, trace_b): Hits of two stored traces side by side; null where a trace does not list the passage.
SELECT both_hits.* FROM (SELECT unnest(_compare(CAST(trace_a AS VARCHAR), CAST(trace_b AS VARCHAR))) AS both_hits)
-- table_macro group_influence(query, kind): Influence of every source, entity, month or corpus, all its passages counted.
SELECT weighed.* FROM (SELECT unnest(_group_influence(CAST(query AS VARCHAR), CAST(kind AS VARCHAR))) AS weighed)
-- macro influence(query, passage_id): Score of a passage for a stored trace or query; null for one that is not encoded.
_influence(CAST(query AS VARCHAR), CAST(passage_id AS VARCHAR))
-- table_macro opponents(query, k, filter): Passages of lowest score for a stored trace or query.
SELECT hit.* FROM (SELECT unnest(_opponents(CAST(query AS VARCHAR), CAST(k AS BIGINT), CAST("filter" AS VARCHAR))) AS hit)
-- table_macro proponents(query, k, filter): Passages of highest score for a stored trace or query.
SELECT hit.* FROM (SELECT unnest(_proponents(CAST(query AS VARCHAR), CAST(k AS BIGINT), CAST("filter" AS VARCHAR))) AS hit)
-- table_macro trace(prompt, target, k, filter, instead, method, curvature, encoder, chat, approximate): Asks the model a question and returns its proponents and opponents; nothing is stored.
SELECT hit.* FROM (SELECT unnest(_trace(CAST(prompt AS VARCHAR), CAST("target" AS VARCHAR), CAST(k AS BIGINT), CAST("filter" AS VARCHAR), CAST("instead" AS VARCHAR), CAST("method" AS VARCHAR), CAST(curvature AS VARCHAR), CAST(encoder AS VARCHAR), CAST(chat AS BOOLEAN), CAST(approximate AS BOOLEAN))) AS hit)

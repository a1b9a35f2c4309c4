SELECT source, count(*) AS proponents, round(sum(score), 2) AS influence
FROM influence
WHERE side = 'proponent' AND exact
GROUP BY source
ORDER BY influence DESC
LIMIT 10;

-- The answers of the newest trace, with their passages.;
SELECT side, rank, round(score, 4) AS score, source, published, title, text
FROM influence
WHERE trace_id = (SELECT max_by(trace_id, created_at) FROM traces)
ORDER BY side DESC, rank;

-- Passages that push many answers.;
SELECT text, count(DISTINCT query_id) AS answers, round(avg(score), 3) AS mean_score
FROM influence
WHERE side = 'proponent'
GROUP BY text
ORDER BY answers DESC
LIMIT 10;

-- Entities of the passages that pushed each way.;
SELECT entity, count_if(side = 'proponent') AS towards, count_if(side = 'opponent') AS away
FROM (SELECT side, unnest(entities) AS entity FROM influence)
GROUP BY entity
ORDER BY towards DESC
LIMIT 10;

-- The corpus by source and year.;
SELECT source, year(published) AS year, count(*) AS documents, sum(n_passages) AS passages
FROM documents
GROUP BY ALL
ORDER BY documents DESC
LIMIT 10;

-- What has been asked, and how it was searched.;
SELECT traces.created_at, prompt, target, method, filter, trace_id
FROM traces
JOIN queries USING (query_id)
ORDER BY traces.created_at DESC
LIMIT 10;

-- What a relation has.;
DESCRIBE influence;

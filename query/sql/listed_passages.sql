-- Which of some ids are passages.
SELECT passage_id
FROM passages
WHERE passage_id IN (SELECT unnest($ids))

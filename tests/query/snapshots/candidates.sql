SELECT passage_id, text_hash, doc_id
FROM passages
WHERE true;

SELECT passage_id, text_hash, doc_id
FROM (
    SELECT documents.* EXCLUDE (doc_id), passages.*
    FROM passages
    JOIN documents USING (doc_id)
)
WHERE true;

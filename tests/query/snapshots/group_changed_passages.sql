CREATE TABLE passages AS
SELECT passage_id, doc_id, text_hash
FROM all_passages
WHERE passage_id IN (FROM main.changed_passages)
    OR doc_id IN (FROM main.changed_documents)
    OR text_hash IN (FROM main.changed_texts);

-- Passages of some texts, by the hash of the text.
SELECT text_hash, list(passage_id ORDER BY passage_id) AS passage_ids
FROM passages
WHERE text_hash IN (SELECT unnest($hashes))
GROUP BY text_hash

-- source = 'news' AND published >= DATE '2001-02-03'
(("source" = 'news') AND (published >= CAST('2001-02-03' AS DATE)))
-- entity('France') AND NOT near_duplicate
((passage_id = ANY(SELECT passage_id FROM mentions WHERE (mentions.entity = 'France'))) AND (NOT (doc_id = ANY(SELECT doc_id FROM near_duplicates))))
-- mention(type = 'GPE' AND entity IN ('Peru', 'Kenya')) OR list_contains(entities, 'x')
((passage_id = ANY(SELECT passage_id FROM mentions WHERE (("type" = 'GPE') AND (entity IN ('Peru', 'Kenya'))))) OR list_contains(entities, 'x'))
-- metadata ->> 'stars' = '3' -- a comment
((metadata ->> 'stars') = '3')

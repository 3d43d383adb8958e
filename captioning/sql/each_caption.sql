-- Views of what the kept images have from each caption source, alike for all of them. The mix has what the source
-- that the coin took has; its caption may be cut.
--
-- Reads   selection, raw_offers, captions, mix, nouns, grounding
-- Knob    $beside: SELECT statements for captioners whose captions lie beside, each begun by UNION ALL, or nothing

-- (source, row_id, caption, reason)
CREATE OR REPLACE TEMPORARY VIEW each_caption AS
SELECT source, row_id, caption, reason
FROM (
    SELECT 'raw' AS source, row_id, caption, reason FROM raw_offers
    UNION ALL
    SELECT 'synthetic', row_id, caption, reason FROM captions
    UNION ALL
    SELECT 'mix', row_id, caption, if(caption IS NULL, 'no_caption', NULL) FROM mix
    $beside
)
WHERE row_id IN (SELECT row_id FROM selection WHERE kept);

-- (source, row_id, nouns, num_words, num_tokens, tokenizer), the last two of the caption before any cut
CREATE OR REPLACE TEMPORARY VIEW each_nouns AS
SELECT caption_source AS source, row_id, nouns, num_words, num_tokens, tokenizer FROM nouns WHERE num_words IS NOT NULL
UNION ALL
SELECT 'mix', row_id, nouns, num_words, nouns.num_tokens, nouns.tokenizer
FROM nouns JOIN mix USING (row_id, caption_source) WHERE num_words IS NOT NULL;

-- (source, row_id, scorer, detector, mean_score, lowest_score, ungrounded_share)
CREATE OR REPLACE TEMPORARY VIEW each_grounding AS
SELECT caption_source AS source, row_id, scorer, detector, mean_score, lowest_score, ungrounded_share
FROM grounding WHERE scorer IS NOT NULL
UNION ALL
SELECT 'mix', row_id, scorer, detector, mean_score, lowest_score, ungrounded_share
FROM grounding JOIN mix USING (row_id, caption_source) WHERE scorer IS NOT NULL;

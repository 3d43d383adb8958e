-- How many tokens the offline tokenizer (schemas/tokens.py) makes of a caption: words and single marks, and one for
-- the end of the text. A test compares the two.
CREATE OR REPLACE TEMPORARY MACRO num_tokens_of(caption) AS
    len(regexp_extract_all(caption, '[\p{L}\p{N}_]+(?:[''’][\p{L}\p{N}_]+)?|[^\p{L}\p{N}_\s]')) + 1;

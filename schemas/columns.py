"""The columns of every table and view of a dataset, with type and meaning, and how each table is cut into parts.
Every row carries `row_id`, the ordinal of the input in the listing: it orders rows, joins tables and never repeats,
where `image_id` names content, which two files may share and a file that cannot be read has not."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import NamedTuple


class Column(NamedTuple):
    """A column of a table: its type, its meaning in a few words, and whether it may be null."""

    type: str
    """The name of an Arrow type, or `list of` one, or `map of text to` one; see `schemas.tables`."""
    meaning: str
    nullable: bool = True


Columns = dict[str, Column]

text, texts = partial(Column, "string"), partial(Column, "list of string")
boolean, binary = partial(Column, "bool"), partial(Column, "binary")
int8, int32, int64, uint64 = (partial(Column, name) for name in ("int8", "int32", "int64", "uint64"))
float32, float64 = partial(Column, "float32"), partial(Column, "float64")

TABLES: dict[str, Columns] = {}
"""The tables of a dataset, in the order of the jobs."""


def _table(name: str, /, **columns: Column) -> Columns:
    TABLES[name] = columns
    return columns


def _columns(**columns: Column) -> Columns:
    return columns


_ROW = {"row_id": int64("ordinal of the input in the listing; joins all tables, never repeats", nullable=False)}
_IMAGE = {"image_id": text("names the content: the same bytes have the same id; null where a file cannot be read")}
_ORIGIN = {
    "source": text("a folder's absolute path or URL, never with credentials", nullable=False),
    "source_name": text("short name of the source, which shards carry", nullable=False),
    "member": text("below the source: a file, tar#member or table.parquet#row/column", nullable=False),
    "byte_offset": int64("inside a tar, or the row in a table; null for a file"),
}
_PROVENANCE = {
    "url": text("where the picture came from, as its source says"),
    "license": text("licence of the picture, as its source says"),
}
_HEADER = {
    "format": text("Pillow's name of it: JPEG, PNG, WEBP, ..."),
    "mode": text("Pillow's mode of the original"),
    "width": int32("upright px"),
    "height": int32("upright px"),
    "exif_orientation": int8("1 to 8, from EXIF, or from XMP where EXIF has none; else 1"),
    "frames": int32("pictures in the file"),
    "icc": boolean("the original embeds a colour profile; the proxy is converted to sRGB"),
    "colour": text(
        "by what its colours are read: icc, cicp or nclx (code points), srgb, gamma (gAMA and cHRM), tags (of a TIFF), "
        "enumerated (of a JPEG 2000), exif (Adobe RGB); null where nothing says it, and it is taken as sRGB"
    ),
    "metadata_left_out": int32("chunks of a PNG's metadata that were passed over: a wrong checksum, or too long"),
}
_DETAIL = {"detail": text("what went wrong, for a person")}

LISTING = _table(
    "listing",
    **_ROW,
    **_ORIGIN,
    num_bytes=int64("as listed; null where the file cannot be looked at"),
    sidecar=text("relative path of the caption file of the image"),
    raw_caption=text("from a captions table that names the image"),
    **_PROVENANCE,
    reason=text("ImageError or FetchError, where listing found that there is no picture"),
    **_DETAIL,
    other_captions=texts("the rest of a list of captions from a table; null where there is none"),
)

IMAGES = _table(
    "images",
    **_ROW,
    **_IMAGE,
    **_ORIGIN,
    num_bytes=int64("of the original"),
    sha256=text("of the original bytes"),
    **_HEADER,
    alpha=float32("share of the picture that is see-through, 0 to 1; null where opaque"),
    raw_caption=text("the caption that came with the picture, as it came"),
    **_PROVENANCE,
    reason=text("ImageError or FetchError; null where there is a picture"),
    **_DETAIL,
    other_captions=texts("the rest of a list of captions, of which raw_caption is the first; null where there is none"),
)

HEADERS = _table(
    "headers",
    **_ROW,
    num_bytes=int64("as found, or as listed where it could not be read"),
    **_HEADER,
    reason=text("as in images, where the header alone tells it"),
    **_DETAIL,
)
"""The header of each input, from `sigma ingest --probe-only`. No other table depends on it; paths are in `listing`."""

PROXIES = _table(
    "proxies",
    **_ROW,
    **_IMAGE,
    jpeg=binary("the picture as JPEG: upright sRGB, longest side at most ingest.proxy_px"),
    width=int32("px of the proxy"),
    height=int32("px of the proxy"),
)

FINGERPRINTS = _table(
    "fingerprints",
    **_ROW,
    **_IMAGE,
    phash=uint64("64-bit DCT hash of the proxy; 0, never null, where pixel_sha256 is null: there is no picture"),
    pixel_sha256=text("of the original's size and the proxy's pixels"),
)

SCORES = _table(
    "scores",
    **_ROW,
    **_IMAGE,
    aesthetic=float32("1 to 10, higher is better"),
    aesthetic_scorer=text("who gave it"),
)

EMBEDDINGS = _table(
    "embeddings",
    **_ROW,
    **_IMAGE,
    model=text("the CLIP that gave it; null where there is no picture"),
    embedding=Column("list of float16", "of the picture, as projected: not normalised"),
)
"""Only with `aesthetic.store_embeddings`."""

SCREENS = _table(
    "screens",
    **_ROW,
    **_IMAGE,
    sharpness=float32("grey levels, of the sharpest tenth"),
    upscale=float32("looks enlarged by this factor; 1 is native"),
    border=float32("share of the area that is frame or bars, 0 to 1"),
    border_box=Column("list of int32", "left, top, right, bottom of the picture inside, upright px"),
    nsfw=float32("probability, 0 to 1"),
    watermark=float32("probability, 0 to 1"),
    classes=Column("map of text to float32", "of the recipe's other classifiers, by their names"),
    clip_similarity=float32("cosine of the picture and its raw caption"),
    models=Column("map of text to string", "column or class, and the model that gave it"),
    text_area=float32("share of the picture that is writing, 0 to 1"),
    faces=int32("number of faces that are seen"),
    face_area=float32("share of the picture in the box of the largest face, 0 to 1; 0 without one"),
)
"""A column is null where its screen is off, or cannot measure the picture."""

DUPLICATES = _table(
    "duplicates",
    **_ROW,
    **_IMAGE,
    group_id=int64("lowest row_id of the group", nullable=False),
    method=text("bytes, pixels, phash or semantic, the strongest; null if alone"),
    distance=float32("to its nearest by that method: bits between pHashes, or 1 - cosine"),
    other_dataset=text("folder of a dataset of dedup.against that holds the picture; null where none does"),
    other_image_id=text("the picture's id there"),
    other_method=text("method by which it was found there"),
    other_distance=float32("distance to it there"),
)

RAW_CAPTIONS = _table(
    "raw_captions",
    **_ROW,
    **_IMAGE,
    caption=text("the raw caption, cleaned; null where there is a reason"),
    language=text("ISO 639 code; null where it is not sure"),
    removed=texts("what was taken out: html, urls, hashtags, extension, the end of a long text", nullable=False),
    reason=text("RawCaptionReason: why there is no caption"),
)

SELECTION = _table(
    "selection",
    **_ROW,
    **_IMAGE,
    rejected_by=text("Rejection: the rule; null where kept or where ingest failed"),
    value=float64("what the rule measured"),
    threshold=float64("the rule's limit"),
    duplicate_of=text("image_id of the survivor, or of the picture in the other dataset"),
    duplicate_of_row=int64("row_id of the survivor (an exact copy shares its image_id)"),
    duplicate_method=text("method of duplicates; its distance is the value"),
    other_dataset=text("folder of the dataset of dedup.against that holds the picture"),
    kept=boolean("whether the picture stays", nullable=False),
    subsets=texts("names of select.subsets that it is in", nullable=False),
    inherited_caption=text("cleaned raw caption of a duplicate; null where the picture has its own, or there is none"),
    inherited_from=text("image_id of the duplicate that it came with"),
    inherited_from_row=int64("row_id of that duplicate"),
)

CAPTIONS = _table(
    "captions",
    **_ROW,
    **_IMAGE,
    captioner=text("who wrote it: the model, with the start of its revision", nullable=False),
    revision=text("the model's commit, or the digest of its folder; null where it has none"),
    prompt=text("what the captioner was asked; null where it takes none"),
    parameters=text("JSON: decoding, limits, precision"),
    caption=text("the synthetic caption"),
    num_tokens=int32("as the captioner counted what it wrote; null where it does not tell"),
    reason=text("CaptionReason: why there is no caption; null where there is one"),
    refused_caption=text("what the captioner wrote, where the gate refused it; judged again without asking again"),
    cut=texts(
        "what was around the caption and taken off: preambles, offers, thinking, Markdown; null where nothing was"
    ),
)

MIX = _table(
    "mix",
    **_ROW,
    **_IMAGE,
    caption=text("the one that a sample carries"),
    caption_source=text("synthetic or raw; null where there is no caption"),
    coin=float64("0 to 1, from image_id and mix.salt; under mix.synthetic_share is synthetic"),
    fallback=text("Fallback: why the coin was not followed; null where it was"),
    num_tokens=int32("of the caption as it is here, the end of the text included"),
    tokenizer=text("who counted"),
    truncated=boolean("was longer than the trainer reads, and is cut"),
)

NOUNS = _table(
    "nouns",
    **_ROW,
    **_IMAGE,
    caption_source=text("raw, synthetic, or the name of a further captioner", nullable=False),
    nouns=texts("lemmas (or compounds) in reading order, with repeats; null where there is no caption"),
    num_words=int32("tokens of the caption that are neither punctuation nor space"),
    num_tokens=int32("of the caption before any cut, the end of the text included"),
    tokenizer=text("who counted: that of the mix"),
)

NOUN_SOURCES = ("raw", "synthetic")
"""The rows that `nouns` holds per image, in this order; one for each further captioner follows."""

GROUNDING = _table(
    "grounding",
    **_ROW,
    **_IMAGE,
    caption_source=text("one row per image and entry of ground.sources", nullable=False),
    scorer=text("the CLIP model; null where there is no caption or no picture"),
    sentences=texts("of the caption, in order"),
    sentence_scores=Column("list of float32", "cosine of each with the picture"),
    lowest_sentence=text("the sentence that fits least"),
    lowest_score=float32("its score"),
    mean_score=float32("of all sentences"),
    num_cut=int32("sentences that are longer than the scorer reads"),
    detector=text("the open-vocabulary detector; null where it was not asked"),
    nouns=texts("distinct, in reading order"),
    noun_scores=Column("list of float32", "of each noun's best box, 0 to 1"),
    ungrounded=texts("nouns under ground.min_noun_score"),
    ungrounded_share=float32("share of the nouns that are ungrounded"),
)

NOUN_USES = _table(
    "noun_uses",
    caption_source=text("raw, synthetic, mix, or a captioner's name", nullable=False),
    subset=text("of select.subsets; null for the whole set"),
    noun=text("lemma or compound, as in nouns", nullable=False),
    num_uses=int64("occurrences", nullable=False),
    num_images=int64("images whose caption has it", nullable=False),
)
"""The whole set first, then its subsets; of each source the most used noun first."""

BALANCE = _table(
    "balance",
    **_ROW,
    **_IMAGE,
    num_nouns=int32("distinct nouns of the mixed caption", nullable=False),
    num_common=int32("of them, those in more images than balance.most_images", nullable=False),
    weight=float32("how much the image should count, over 0 to 1", nullable=False),
    coin=float64("0 to 1, from image_id", nullable=False),
    dropped=boolean("left out of the shards, where balance.drop asks for it", nullable=False),
)
"""Only where `balance.most_images` is set; a row per kept image that has a caption."""

STATISTICS = _table(
    "statistics",
    caption_source=text("raw, synthetic, mix, or a captioner's name", nullable=False),
    subset=text("of select.subsets; null for the whole set"),
    num_images=int64("kept images that have a caption of this source", nullable=False),
    valid_nouns=int64("VN: distinct nouns with more uses than statistics.valid_above", nullable=False),
    distinct_nouns=int64("DN: distinct nouns", nullable=False),
    total_nouns=int64("occurrences of nouns", nullable=False),
    average_caption_words=float64("ACL in words"),
    average_caption_tokens=float64("ACL in tokens"),
    tokenizer=text("who counted them; null without captions"),
    average_nouns=float64("nouns per image"),
)

SHARD_PLAN = _table(
    "shard_plan",
    shard_id=int32("ordinal over all shards: the part of samples", nullable=False),
    position=int32("of the sample inside its shard", nullable=False),
    shard=text("path under shards/", nullable=False),
    bucket=text("aspect bucket, named as in the shard's folder", nullable=False),
    **_ROW,
    image_id=text("names the content: the same bytes have the same id", nullable=False),
    **_ORIGIN,
    num_bytes=int64("of the original", nullable=False),
    sha256=text("of the original bytes", nullable=False),
    format=text("Pillow's name of it: JPEG, PNG, WEBP, ...", nullable=False),
    width=int32("of the original, upright px", nullable=False),
    height=int32("of the original, upright px", nullable=False),
    **_PROVENANCE,
    phash=uint64("as in fingerprints"),
    aesthetic=float32("as in scores"),
    aesthetic_scorer=text("as in scores"),
    subsets=texts("names of select.subsets that it is in", nullable=False),
    original_caption=text("as it came with the image"),
    raw_caption=text("cleaned: its own, or a duplicate's"),
    raw_reason=text("RawCaptionReason: why there is none; null where one was taken over"),
    captioner=text("who wrote the synthetic caption"),
    synthetic_caption=text("as in captions"),
    caption=text("the one that the sample carries", nullable=False),
    caption_source=text("synthetic or raw", nullable=False),
    coin=float64("as in mix", nullable=False),
    fallback=text("as in mix"),
    num_tokens=int32("as in mix", nullable=False),
    weight=float32("of balance; 1 where concepts are not balanced", nullable=False),
    recipe=text("fingerprint of the knobs that shaped the sample", nullable=False),
    raw_caption_from=text("image_id of the duplicate whose raw caption it carries"),
    further_captioners=texts("who wrote the further captions; null where the recipe names none"),
    further_captions=texts("captions of `caption.beside`, in its order; null where one has none"),
    other_captions=texts("as in images"),
)
"""Sorted by shard_id and position, so that a shard's rows are read without the rest."""

SAMPLES = _table(
    "samples",
    **_ROW,
    image_id=text("names the content: the same bytes have the same id", nullable=False),
    key=text("of the sample in its tar"),
    shard=text("path under shards/"),
    bucket=text("aspect bucket, named as in the shard's folder", nullable=False),
    width=int32("of the stored image, upright px"),
    height=int32("of the stored image, upright px"),
    aesthetic=float32("as in scores"),
    num_tokens=int32("as in mix"),
    caption_source=text("synthetic or raw"),
    subsets=texts("names of select.subsets that it is in"),
    weight=float32("of balance; 1 where concepts are not balanced"),
    image_ext=text("ending of the image member"),
    image_offset=int64("first byte of the image in the tar"),
    image_size=int64("bytes of the image"),
    txt_offset=int64("first byte of the caption in the tar"),
    txt_size=int64("bytes of the caption"),
    json_offset=int64("first byte of the metadata in the tar"),
    json_size=int64("bytes of the metadata"),
    reason=text("ShardError; null where the shard holds the sample"),
    **_DETAIL,
    content=text("digest of its picture and captions; null in shards that older versions wrote"),
    shard_sha256=text("of the tar that it was packed into; null in shards that older versions wrote"),
)

REDUCE_TABLES = ("duplicates", "selection", "noun_uses", "balance", "statistics", "shard_plan")
"""Tables computed over all parts of their inputs, and sorted by row_id where they have one; see `cut_of`."""

MEANINGS = {table: {name: column.meaning for name, column in columns.items()} for table, columns in TABLES.items()}
"""Table or view -> column -> meaning. Names in capitals are the enumerations of `schemas.reasons`."""
MEANINGS["captions_beside"] = MEANINGS["captions"] | {"source": "the captioner's name in the recipe"}
MEANINGS["raw_offers"] = {
    "caption": "what the picture offers to the mix: its own raw caption, cleaned, or a duplicate's",
    "reason": "RawCaptionReason: why there is none",
    "inherited_from": "image_id of the duplicate that the caption came with; null where it is its own",
}
MEANINGS["ledger"] = {
    "outcome": "kept, rejected, error, purged, or pending while a build is unfinished",
    "stage": "the job that decided it; for a pending row the job that is still to run; null where kept",
    "reason": "the rule, or the error; a value of schemas.reasons",
    "value": "what the rule measured",
    "threshold": "the rule's limit",
    "duplicate_of": "image_id of the survivor",
    "inherited_from": "image_id of the duplicate whose raw caption it took over",
    "shard": "path under shards/",
    "key": "of the sample in its tar",
}

_PROMPT = {"prompt_id": text("as its source names it, else a digest of the text", nullable=False)}
_PICTURE = {**_ROW, **_PROMPT, "number": int32("of the picture among those of its prompt, from 0", nullable=False)}
_CATEGORY = {"category": text("as the source of the prompts says; null where it says none")}

PROMPTS = _columns(
    **_ROW,
    **_PROMPT,
    prompt=text("what the models are given; null where there is a reason"),
    **_CATEGORY,
    reference_image_id=text("of the picture that the prompt was written for, as its source names it"),
    file=text("that picture: an absolute path or address; null where the source names none"),
    offset=int64("its first byte in the file; null where it is the whole file"),
    size=int64("its bytes; null where it is the whole file"),
    reason=text("PromptReason: why nothing is drawn"),
    **_DETAIL,
)
PICTURES = _columns(
    **_PICTURE,
    **_CATEGORY,
    seed=int64("of its noise; null where the picture was not drawn here"),
    file=text("a tar below samples/ of the evaluation, or an absolute path or address; null where there is a reason"),
    offset=int64("its first byte in the file; null where it is the whole file"),
    size=int64("its bytes; null where it is the whole file"),
    width=int32("upright px"),
    height=int32("upright px"),
    format=text("Pillow's name of it; PNG where it was drawn here"),
    quality=text("of a JPEG: the digest of its quantisation tables"),
    image_id=text("names the content of the file, as in a dataset; null where there is a reason"),
    pixel_sha256=text("of the upright sRGB pixels and their size"),
    drawn=text("digest of all that it depends on besides prompt and seed; null where it was not drawn here"),
    reason=text("PictureReason or ImageError: why there is no picture"),
    **_DETAIL,
)
FEATURES = _columns(
    **_PICTURE,
    **_CATEGORY,
    features=Column("list of float32", "what the network made of the picture; null where there is a reason"),
    reason=text("as in pictures, or why the network was not shown it"),
    **_DETAIL,
)
AGREEMENT = _columns(
    **_PICTURE,
    **_CATEGORY,
    cosine=float32("of the picture and its prompt, by CLIP; null where there is a reason"),
    share_read=float32("of the prompt's tokens that CLIP has read"),
    reason=text("as in pictures, or why CLIP was not shown it"),
    **_DETAIL,
)
NEARNESS = _columns(
    **_PICTURE,
    **_CATEGORY,
    psnr=float32("dB, of the picture and the first model's from the same noise; null where there is a reason"),
    reason=text("as in pictures, of the one or the other"),
    **_DETAIL,
)
ANSWERS = _columns(
    **_PICTURE,
    **_CATEGORY,
    share=float32("of what its prompt says that it shows: by GenEval 1 or 0, by DPG-Bench of the questions"),
    missing=text("what it does not show, a line each: as GenEval says it, or questions whose answer is not yes"),
    facts=text("JSON that the rules judge: of GenEval detections, of DPG-Bench the reply to each question"),
    reason=text("as in pictures, or AnswerReason"),
    **_DETAIL,
)
RESULTS = _columns(
    model=text("its name in the recipe", nullable=False),
    step=int64("of the checkpoint; null where it is none of ours"),
    metric=text("fid, kid, precision, recall, clip_score, cmmd, psnr, geneval or dpg", nullable=False),
    category=text("of the prompts; null for all"),
    value=float64("null where there is a reason"),
    low=float64("95 %, over the prompts: of fid by a jackknife, of the others by a bootstrap"),
    high=float64("as low"),
    network=text("and the beginning of its weights' sha256; `pixels` of psnr", nullable=False),
    protocol=text("how pixels come to the network; of a benchmark its rules", nullable=False),
    reference=text("what the pictures are compared with; null for clip_score and benchmarks"),
    reference_digest=text("of its features"),
    num_generated=int64("pictures"),
    num_reference=int64("pictures"),
    drawn=text("how the pictures were drawn: size, sampler, steps and guidance, as JSON", nullable=False),
    quick=int64("prompts, where only some were taken to save time"),
    flags=texts("Flag: what the number suffers from", nullable=False),
    reason=text("why there is no value"),
    change=float64("from the value of the first model of the recipe, where the two compare"),
    change_low=float64("95 % of the change, of differences between pictures of the same prompts"),
    change_high=float64("as change_low"),
)
_JUDGED = {
    "model_a": text("its name in the recipe", nullable=False),
    "model_b": text("its name in the recipe", nullable=False),
    "aspect": text("alignment or quality", nullable=False),
    "kind": text("of the judge: model or person", nullable=False),
}
VERDICTS = _columns(
    question=text(
        "names what a model is asked: both pictures, the text, the knobs; of people the pair on the page", False
    ),
    **_PROMPT,
    number=int32("of the pictures among those of their prompt, from 0", nullable=False),
    **_JUDGED,
    order=text("ab: the picture of model_a is the first; ba: it is the second", nullable=False),
    judge=text("a model, @ and its revision where the server names one; or the name of a person", nullable=False),
    attempt=int32("1 where the first reply could not be read", nullable=False),
    reply=text("as it was written; null of people, and where nobody was asked"),
    verdict=text("first, second, tie, unparsed or refused", nullable=False),
    reason=text("as the judge gave it, or why there is no reply"),
    tokens=int64("of the reply, as the server counts them"),
    seconds=float32("from the request to the reply; of a person from the first sight"),
)
PREFERENCES = _columns(
    **_JUDGED,
    judge=text("a model, a person, or `all` people where there are several", nullable=False),
    num_pairs=int64("pairs of pictures with an answer to each order", nullable=False),
    num_prompts=int64("their prompts", nullable=False),
    num_answered=int64("pairs with a verdict in each order that was asked", nullable=False),
    win_rate=float64("of model_a, what is undecided counted as a half; null where there is a reason"),
    low=float64("95 %, by a bootstrap over the prompts"),
    high=float64("as low"),
    wins=int64("pairs in which model_a is better in both orders"),
    losses=int64("pairs in which model_b is"),
    decided=float64("wins / (wins + losses); null where there are none"),
    decided_low=float64("95 %, by Wilson"),
    decided_high=float64("as decided_low"),
    share_tied=float64("of the answered pairs: a tie in both orders"),
    share_position=float64("of the answered pairs: the orders contradict each other"),
    share_unparsed=float64("of the verdicts"),
    share_refused=float64("of the verdicts"),
    lean=float64("how much more often than half the first picture is chosen, -0.5 to 0.5"),
    lean_low=float64("95 %, by Wilson"),
    lean_high=float64("as lean_low"),
    reason=text("why there is no win rate"),
)
STRENGTHS = _columns(
    aspect=_JUDGED["aspect"],
    kind=_JUDGED["kind"],
    judge=text("as in preferences", nullable=False),
    model=text("its name in the recipe", nullable=False),
    strength=float64("Bradley-Terry's, a logarithm, 0 in the mean; null where there is a reason"),
    reason=text("why there are no strengths"),
)
EVALUATION_TABLES = {
    "prompts": PROMPTS,
    "results": RESULTS,
    "verdicts": VERDICTS,
    "preferences": PREFERENCES,
    "strengths": STRENGTHS,
}
"""Tables of an evaluation, see `evaluation.folder`, where each model has one more of each family; the last three are of
`sigma judge`."""

FAMILIES = {
    "captions_beside/": CAPTIONS,
    "pictures/": PICTURES,
    "features/": FEATURES,
    "agreement/": AGREEMENT,
    "nearness/": NEARNESS,
    "answers/": ANSWERS,
}
"""Prefix -> columns of the map tables of which there may be many: one for each further captioner, or for each model."""

ADDED = {
    "captions": ("refused_caption", "cut"),
    "headers": ("colour", "metadata_left_out"),
    "images": ("colour", "metadata_left_out", "other_captions"),
    "listing": ("reason", "detail", "other_captions"),
    "results": ("change", "change_low", "change_high"),
    "samples": ("content", "shard_sha256"),
    "screens": ("text_area", "faces", "face_area"),
    "selection": ("inherited_caption", "inherited_from", "inherited_from_row"),
    "shard_plan": ("raw_caption_from", "further_captioners", "further_captions", "other_captions"),
}
"""Last columns that a table has gained: a file that was written before is as good, and reads as null there."""

BESIDE = "captions_beside/"
"""Prefix of the captions of a further captioner of the recipe: `captions_beside/<captioner>`, a map table of the
contract of `captions` in a folder of its own."""

BESIDE_ONCE = "captions/"
"""The prefix that it once was; see `engine.old_layout`."""

SHARDS_PER_PART = 64
"""Shards whose rows are in one part of `shard_plan`."""


WIDE_TABLES = ("proxies", "embeddings")
"""Tables whose rows are large: of a dataset in a store they are copied only for a query that names them."""


class Cut(Enum):
    """What a part of a table holds."""

    LISTING = "the inputs of a part of the listing"
    PROMPTS = "the prompts of a part"
    SHARD = "a shard"
    SHARDS = "some shards"
    WHOLE = "the whole table"


ROOTS = {Cut.LISTING: "listing", Cut.PROMPTS: "prompts"}
"""The tables that are made from no other one: as many parts as they have, the tables cut like them have."""


def cut_of(table: str) -> Cut:
    if table in _CUTS:
        return _CUTS[table]
    if table == "prompts" or (_family(table) or BESIDE) != BESIDE:
        return Cut.PROMPTS
    return Cut.LISTING if "row_id" in columns_of(table) else Cut.WHOLE


_CUTS = {"samples": Cut.SHARD, "shard_plan": Cut.SHARDS}


def _family(table: str) -> str | None:
    prefix = table.partition("/")[0] + "/"
    return prefix if prefix in FAMILIES else None


def is_map_table(table: str) -> bool:
    """Whether part n of a table is computed from part n of its inputs: each holds the same inputs in the same order.

    Three differ: `nouns` holds a row per input and caption source, `grounding` one per source that the recipe names,
    and the parts of `samples` are shards.
    """
    return (table in TABLES and table not in REDUCE_TABLES) or _family(table) is not None


def is_captions(table: str) -> bool:
    """Whether a table holds the captions of a captioner."""
    return table == "captions" or table.startswith(BESIDE)


def columns_of(table: str) -> Columns:
    """The columns of a table, of any family too."""
    family = _family(table)
    return FAMILIES[family] if family else TABLES[table] if table in TABLES else EVALUATION_TABLES[table]


def added_to(table: str) -> tuple[str, ...]:
    """The last columns that a table has gained, see `ADDED`."""
    return ADDED.get("captions" if is_captions(table) else table, ())


def meaning(view: str, column: str) -> str | None:
    """Return what a column of a table or view means; None for one that a later version has added."""
    shared = _ROW | _IMAGE | _ORIGIN | _PROVENANCE | _DETAIL
    return MEANINGS.get(view, {}).get(column) or (shared[column].meaning if column in shared else None)

"""Finds texts that photographs carry in place of captions: file names, camera names, placeholders, keywords."""

from __future__ import annotations

import re

from captioning.texts.text import sentences, words

MIN_KEYWORDS = 8
"""A list of keywords has at least this many items between commas or the like, ..."""
KEYWORD_WORDS = 2.5
"""... an item of it has at most this many words on average, ..."""
FUNCTION_WORD_SHARE = 0.1
"""... and at most this share of its words are words that sentences are made with."""
MIN_TAGS = 4
"""A captioner's list of tags has at least this many items, ..."""
ENDED_TAG_WORDS = 2
"""... and at most this many words in each on average where it ends like a sentence."""
MIN_HASHTAGS = 3
"""At least this many hashtags are keywords too, if they are at least half of the words."""
DESCRIPTIVE_WORDS = 4
"""A file name of at least this many words with spaces between them describes the picture: "a red fox in snow.jpg"."""

_LONGEST_NAME = 300
"""Characters; no file name and no camera name is longer."""

_EXTENSION = re.compile(
    r"\.(?:jpe?g|png|gif|webp|tiff?|bmp|hei[cf]|avif|jxl|jp2|cr[23]|nef|arw|dng|raf|orf|rw2|raw|psd|svg|pdf|mp4|mov|avi)"
    r"\Z",
    re.IGNORECASE,
)
_COUNTER = re.compile(
    r"[_\W]*(?:img|image|dsc[fn]?|pict?|pxl|mvimg|vid|mov|gopr|gx|dji|dscf|sam|cimg|hpim|kimg|imag|fb img|received|"
    r"wp|p|photo|picture|screen ?shot|whatsapp image|untitled|scan|foto|bild|snapchat|signal|file|page|frame)?"
    r"(?:[\s_.()#-]*+(?:\d++|wa|mp|hdr|pano|edit(?:ed)?|copy|burst|cover|at|am|pm|[a-z]\d{3,}+))++[\s_.()-]*+",
    re.IGNORECASE,
)
"""File names of cameras, phones and chat programs, without the extension: a word and numbers, or numbers alone."""

_PATH = re.compile(r"(?:[A-Za-z]:\\|\\\\|~/|(?:\.\./)+|/)?(?:[^\s/\\]+[/\\])*[^\s/\\]+")


def _words_of(listed: str, separator: str | None = None) -> frozenset[str]:
    return frozenset(listed.split(separator))


_BRANDS = _words_of(
    "agfa apple asus blackberry canon casio contax dji fuji fujifilm google gopro hasselblad hp htc huawei kodak "
    "konica kyocera leica lenovo lg minolta motorola nikon nokia olympus om oneplus oppo panasonic pentax phase "
    "polaroid realme ricoh rollei samsung sanyo sharp sigma sony vivo xiaomi yashica zeiss"
)
_CAMERA_WORDS = _words_of(
    "air alpha camera cameras cam co coolpix corp corporation corporations cyber cybershot digilux digital dmc dsc "
    "dslr easyshare electronics eos eastman company exif exilim finepix galaxy hero hs ii iii iv imaging inc ixus "
    "iphone jpeg kiss limited lens lt ltd lumia lumix mark mate mavic max mc mini mirrorless mju mk model note optical "
    "optio pen phantom picture pictures pixel plus power powershot pro rebel redmi shot slr stylus systems tech "
    "technologies the ti ultra xperia xs xr se x z s d by with on taken captured using af f is usm vr ed mm os hsm"
)
_PLACEHOLDERS = _words_of(
    "alt|alt text|caption|default|default alt text|description|enter caption|featured image|file photo|icon|image|"
    "image alt text|image description|image may contain|image not available|image not found|image of|images|img|"
    "loading|logo|n a|na|nan|nil|no alt|no alt text|no alternative text description for this image|no caption|"
    "no caption available|no data|no description|no description available|no image|no image available|no text|"
    "no title|none|nopic|null|photo|photo of|photograph|photos|pic|picture|pictures|placeholder|preview|slide|tbd|"
    "temp|test|text|thumb|thumbnail|title|todo|undefined|unknown|unnamed|untitled|untitled document|video|view",
    "|",
)
_FUNCTION_WORDS = _words_of(
    "a after and are as at be been before behind being below beside between by during for from has have he her his "
    "in inside into is it its near next of off on onto or our out over she that the their them they this through to "
    "under up was we were what when where which while who whose with you your"
)
_ITEMS = re.compile(r"[,;|•·/\n，、；]+")
_TAGS_LABEL = re.compile(r"\A(?:\w+ )?(?:tags?|keywords?|labels?|objects?|prompt)\s*:\s*", re.IGNORECASE)
_BULLET = re.compile(r"(?m)^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+")
_HASHTAG = re.compile(r"(?:#\w*[^\W\d]\w*)+[.,;!]*")


def is_file_name(text: str) -> bool:
    """True if a text is the name or path of a file: "IMG_1234.JPG", "photo (3).png", "DSC00012", "red_fox_01"."""
    if len(text) > _LONGEST_NAME:
        return False
    text = text.strip("\"'“”‘’ ")
    stem = _EXTENSION.sub("", text)
    if _COUNTER.fullmatch(stem.replace("_", " ")):
        return True
    if " " not in stem:
        joined = (
            "_" in stem
            or "\\" in stem
            or (len(stem) >= 10 and ("/" in stem or "-" in stem) and any(map(str.isdigit, stem)))
        )
        return stem != text or (joined and _PATH.fullmatch(stem) is not None)
    if re.match(r"[A-Za-z]:\\|/(?:home|Users|mnt|tmp)/", text):
        return True
    return stem != text and not is_descriptive(stem)


def without_extension(text: str) -> str:
    """A descriptive file name without its extension; any other text as it is."""
    stem = _EXTENSION.sub("", text)
    return stem if stem != text and len(text) <= _LONGEST_NAME and is_descriptive(stem) else text


def is_descriptive(stem: str) -> bool:
    """True if the name of a file, its extension left out, has words enough to say what is in it."""
    return sum(word.isalpha() for word in stem.split()) >= DESCRIPTIVE_WORDS


def is_camera_name(text: str) -> bool:
    """True if a text names a camera and nothing else: "Canon EOS 5D Mark II", "OLYMPUS DIGITAL CAMERA", "SONY DSC"."""
    if len(text) > _LONGEST_NAME:
        return False
    named = [word for part in words(text) for word in part.split("_") if word]
    others = [word for word in named if word not in _BRANDS]
    if not others or not all(word in _CAMERA_WORDS or any(map(str.isdigit, word)) for word in others):
        return False
    known = {"camera", "iphone", "exif", "powershot", "coolpix", "lumix", "finepix", "cybershot"}
    return len(others) < len(named) or bool(known & set(others))


def is_placeholder(text: str) -> bool:
    """True if a text is a placeholder for a missing one: "untitled", "no description available"."""
    return len(text) <= _LONGEST_NAME and " ".join(words(text)) in _PLACEHOLDERS


def is_keywords(text: str) -> bool:
    """True if a text is a list of keywords: many short items without the words of sentences, or mostly hashtags."""
    tokens = text.split()
    hashtags = sum(_HASHTAG.fullmatch(token) is not None for token in tokens)
    if hashtags >= MIN_HASHTAGS and 2 * hashtags >= len(tokens):
        return True
    items = [item for item in _ITEMS.split(text) if item.strip()]
    if len(items) < MIN_KEYWORDS:
        return False
    said = words(text)
    joining = sum(word in _FUNCTION_WORDS for word in said)
    return len(said) <= KEYWORD_WORDS * len(items) and joining <= FUNCTION_WORD_SHARE * len(said)


def is_tags(answer: str) -> bool:
    """True if a captioner's answer is a list of tags: keywords, words joined by underscores, or a few short items
    with hardly a word that sentences are made with."""
    bare = _BULLET.sub("", _TAGS_LABEL.sub("", answer.strip()))
    if is_keywords(bare) or all(map(_HASHTAG.fullmatch, bare.split())):
        return True
    tokens = [token.strip(",;") for token in bare.split()]
    num_joined = sum("_" in token.strip("_") for token in tokens)
    if num_joined >= 2 and len(tokens) <= 2 * num_joined + 2:
        return True
    items = [item for item in _ITEMS.split(bare) if item.strip()]
    if len(items) < MIN_TAGS <= bare.count("."):
        items = sentences(bare)
    if len(items) < MIN_TAGS:
        return False
    said = words(bare)
    joining = len(_FUNCTION_WORDS.intersection(said))
    if bare.rstrip("\"'”’")[-1:] in tuple(".!?。！？…"):  # a sentence may enumerate: "Apples, pears, grapes and plums."
        return not joining and len(said) <= ENDED_TAG_WORDS * len(items)
    return len(said) <= KEYWORD_WORDS * len(items) and joining <= FUNCTION_WORD_SHARE * len(said)


def without_hashtags(text: str) -> str:
    """A text without the hashtags that trail behind it, if they are two or more; "#winning" in a sentence is kept."""
    tokens = text.split()
    end = len(tokens)
    while end and _HASHTAG.fullmatch(tokens[end - 1]):
        end -= 1
    return " ".join(tokens[:end]) if len(tokens) - end >= 2 else text

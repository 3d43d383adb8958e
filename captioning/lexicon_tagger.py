"""The offline tagger: a spaCy component on TextBlob's word list, with context rules that settle noun or not. The list
(Brill's) gives each word its most frequent tag, its suffix rules guess the rest. Its own 290 context rules are slow
and, on English web text, no better than none; those here are few, ask of a word only whether it is a noun in this
place, and are grammar, not fitted to any corpus."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import numpy as np

from captioning.hyphens import DESCRIBING, PARTICLE, held_together, is_name
from captioning.word_list import is_joined, is_singular_noun, lexicon, parser, singular, standing_in

_info = ModuleType("spacy.cli.info")
vars(_info)["info"] = None
# spaCy loads torch where it is, for two seconds, and its commands, for a third of one; the lexicon needs neither
with standing_in("torch", None), standing_in(_info.__name__, _info):
    from spacy.language import Language
    from spacy.tokens import Doc

_PARTICIPLES_WORDS = "see built cut grown laid run made hands head worn spot straight drawn blown torn sold thrown"
_PARTICIPLES = frozenset(_PARTICIPLES_WORDS.split())
"""With a particle behind a hyphen they describe a noun: built-in, worn-out, hands-on; so does any word in -ed."""

FACTORY = "lexicon_tagger"
"""The name under which spaCy knows the component."""

_UNIVERSAL = (
    "NOUN: NN NNS; PROPN: NNP NNPS; VERB: VB VBD VBG VBN VBP VBZ; ADJ: JJ JJR JJS; ADV: RB RBR RBS WRB; "
    "PRON: PRP PRP$ WP WP$ EX; DET: DT PDT WDT; ADP: IN RP; PART: TO POS; CCONJ: CC; NUM: CD; AUX: MD; INTJ: UH; "
    "SYM: SYM; PUNCT: PUNCT"
)
"""Universal part of speech -> the Penn Treebank tags it takes in; any other tag is X."""

_FIXED_WORDS = {
    "PRP": "anyone anybody anything someone somebody something everyone everybody everything nobody nothing none "
    "myself yourself himself herself itself ourselves themselves mine yours hers ours theirs tis twas",
    "RB": "nt n't 't not",
    "CC": "n",
    "MD": "ca wo m 'm ve 've 're 'll 'd ll",
    "UH": "ok okay yes oh wow hey please thanks lol haha",
    "JJ": "close first second third last next teal beige turquoise maroon fuchsia cyan grayish greyish reddish",
    "NN": "foreground background close-up closeup t-shirt e-mail selfie",
}
"""Words whose tag does not hang on their place, or which the word list of 1992 gets wrong or does not know."""

_POS = {tag: pos for pos, _, tags in (line.partition(": ") for line in _UNIVERSAL.split("; ")) for tag in tags.split()}
_FIXED = {word: tag for tag, words in _FIXED_WORDS.items() for word in words.split()}

_PEOPLES_WORDS = "arab czech dutch french german greek israeli iraqi muslim sikh swiss thai roman cuban"
_PEOPLES = frozenset(_PEOPLES_WORDS.split())
"""Names of peoples that no ending gives away; before a noun they are adjectives."""

_SUBJECTS = {"i", "you", "we", "they", "who"}
_SINGULAR_SUBJECTS = {"he", "she", "it", "who", "which", "that", "this"}
_GOVERNORS = {"do", "does", "did", "let", "lets", "please", "not", "n't", "nt", "never"}
_OPENS_NOUN = frozenset(("DT", "PRP$", "POS", "PDT", "WP$"))
_ENDS_NOUN = frozenset(("IN", "PUNCT", "CC", "VBZ", "VBD", "VBP", "MD", "TO", "WDT", "WP", "WRB", "END", "RB", "PRP"))
_OPEN_TAGS = frozenset(("NN", "NNS", "VB", "VBP", "VBZ", "VBD", "VBN", "MD", "VBG", "JJ", "NNP"))
"""Tags that the neighbours can change."""
_FOLLOWS_VERB = frozenset(("DT", "PRP$", "IN", "RB", "RP", "JJ", "NNS", "PRP", "CD", "TO"))
_PLURAL_FIRST = frozenset(("sports", "sales", "arms", "goods", "clothes", "savings", "customs", "news", "series"))
"""Plurals that describe a noun behind them: sports car. A singular behind another plural is that one's verb."""
_ONE = frozenset(("a", "an", "each", "every", "another"))
_SOMEONE = frozenset(("man", "woman", "boy", "girl", "person", "guy", "lady", "player", "toddler", "couple"))
_MANY = frozenset(("dozen", "hundred", "thousand", "million", "few"))
_USED_FOR_WORDS = "room rooms board boards machine machines pool pools table pan pans"
_USED_FOR = frozenset(_USED_FOR_WORDS.split())
"""A gerund before these is their purpose: living room, washing machine."""
_COLOUR_WORDS = "red blue green black white yellow pink purple gray grey brown orange gold silver"
_COLOURS = frozenset(_COLOUR_WORDS.split())
_SENTENCE_END = frozenset((".", "!", "?", "...", "\n", ":"))


def tag_words(words: list[str]) -> list[str]:
    """Penn Treebank tags of the tokens of one text, which may hold several sentences."""
    spelled = _as_in_a_sentence(words)
    tags = []
    start = True
    for word in spelled:
        tags.append(_word_tag(word, start))
        start = word in _SENTENCE_END or (start and not word[:1].isalnum())
    _settle(words, tags)
    return tags


def _as_in_a_sentence(words: list[str]) -> list[str]:
    """The words of a headline without the capitals that say nothing there; those of a sentence as they are. In a
    headline every long word but prepositions has them, and at least three after the first are no names."""
    if sum(map(str.islower, words)) > len(words) // 2:  # most texts are no headline
        return words
    long = [word for word in words if len(word) > 3 and word[0].isalpha() and lexicon.get(word) != "IN"]
    if len(long) > 1 and all(map(str.isupper, long)):
        return [word.lower() if _is_common(word.lower()) else word.title() for word in words]
    if any(word[0].islower() for word in long) or sum(_is_common(word.lower()) for word in long[1:]) < 3:
        return words
    return [word.lower() if _is_common(word.lower()) else word for word in words]


@lru_cache(maxsize=65536)
def _is_common(word: str) -> bool:
    is_known = lexicon.get(word, "FW") != "FW" or is_singular_noun(singular(word)) or held_together(word)
    return is_known or word.endswith(("ed", "ing"))


@lru_cache(maxsize=65536)
def _word_tag(word: str, start: bool) -> str:
    """The tag of a word by itself: fixed table, word list, then its letters."""
    lower = word.lower()
    if not any(map(str.isalnum, word)):
        return "SYM" if word in ("$", "%", "+", "=", "#", "&") else "PUNCT"
    if word == "US":
        return "NNP"
    fixed = _FIXED.get(lower)
    if fixed:
        return fixed
    if lower.endswith("n't"):
        return "MD"
    if held_together(word):
        return "NNP" if is_name(word) else _held_tag(lower)
    if start and word.istitle() and lower in lexicon:
        return str(lexicon[lower])
    if word in lexicon:
        return str(lexicon[word])
    if word[0].isdigit():
        return "CD" if not word.endswith("s") else "NNS"
    if word.istitle():
        if not start:
            return "NNPS" if lexicon.get(lower) == "NNS" else "NNP"
        one = singular(lower)
        return "NNS" if one != lower and (is_singular_noun(one) or is_joined(one)) else "NNP"
    if "-" in word:  # an adjective such as dark-haired, unless it ends like a noun phrase
        return "NNS" if lexicon.get(lower.rpartition("-")[2]) == "NNS" else "JJ"
    return str(parser.find_tags([word])[0][1])


def _held_tag(word: str) -> str:
    """A word that a hyphen holds together is a noun unless its parts describe one: grown-up, but built-in, U-shaped."""
    first, last = word.split("-", 1)[0], word.rsplit("-", 1)[1]
    if PARTICLE.fullmatch(last):
        describes = first.endswith("ed") or first in _PARTICIPLES
    else:
        tag = lexicon.get(last, "NN")
        describes = last.endswith(("ed", "ing")) or tag in ("VBN", "VBD") or tag[:2] not in ("NN", "VB")
    if describes and word.count("-") == 1:
        return "JJ"
    return "NNS" if singular(word) != word else "NN"


@lru_cache(maxsize=65536)
def _can_be_verb(word: str) -> bool:
    """The word list knows its -ing or -ed form."""
    stem = word.removesuffix("e")
    return any(form in lexicon for form in (stem + "ing", stem + "ed", stem + stem[-1:] + "ing"))


def _settle(words: list[str], tags: list[str]) -> None:
    """Decide noun or not by the neighbours, left to right, in place."""
    for place, tag in enumerate(tags):
        if tag not in _OPEN_TAGS:
            continue
        before = tags[place - 1] if place else "START"
        after = tags[place + 1] if place + 1 < len(tags) else "END"
        word, previous = words[place].lower(), words[place - 1].lower() if place else ""
        following = words[place + 1].lower() if place + 1 < len(words) else ""
        if tag == "NN" and after in ("NN", "NNS") and word.partition("-")[0] in DESCRIBING:
            tags[place] = "JJ"  # a non-stick pan
        elif word in _COLOURS and tag in ("NN", "JJ"):
            tags[place] = _colour(words, tags, place)
        elif tag == "NN" and word == "light" and following in _COLOURS:
            tags[place] = "JJ"
        elif tag == "NNS" and _is_verb_of_one(words, tags, place, after):
            tags[place] = "VBZ"
        elif tag in ("NN", "NNS"):
            tags[place] = _noun_or_verb(word, tag, previous, before, after)
        elif tag in ("VB", "VBP", "VBZ", "VBD", "VBN", "MD"):
            tags[place] = _verb_or_noun(word, tag, previous, before, after, following)
        elif tag == "VBG" and before in _OPENS_NOUN and after in _ENDS_NOUN and after != "RB":
            tags[place] = "NN"
        elif tag == "VBG" and following in _USED_FOR and before in ("DT", "PRP$", "JJ", "CC", "IN", "START", "PUNCT"):
            tags[place] = "NN"  # a cutting board
        elif tag == "JJ" and before == "IN" and (following == "of" or word == "top"):
            tags[place] = "NN"  # on top of
        elif (
            tag == "JJ"
            and before in _OPENS_NOUN
            and following not in ("-", "up")
            and after in ("PUNCT", "IN", "END", "VBZ", "VBD", "MD")
        ):
            tags[place] = "NN" if previous not in ("this", "that", "these", "those", "all", "each") else tag
        elif tag == "NNP" and _names_people(word) and after in ("NN", "NNS", "NNP", "NNPS", "JJ"):
            tags[place] = "JJ"


def _colour(words: list[str], tags: list[str], place: int) -> str:
    """A colour is a noun behind a preposition ("in black and white") unless it describes a noun behind it."""
    first, end = place, place + 1
    while first and (words[first - 1].lower() in _COLOURS or tags[first - 1] in ("CC", "JJ")):
        first -= 1
    while end < len(words) and (words[end].lower() in _COLOURS or tags[end] == "CC"):
        end += 1
    describes = (
        end < len(words) and tags[end][:2] in ("NN", "JJ", "VB") and tags[end] not in ("VBZ", "VBD", "VBP", "VBG")
    )
    return "NN" if first and tags[first - 1] == "IN" and not describes else tags[place]


def _is_verb_of_one(words: list[str], tags: list[str], place: int, after: str) -> bool:
    """Behind "a boy" no plural follows: "smiles" is its verb. Before an article, or behind a person, it always is."""
    first = place - 1
    if first < 0 or tags[first] not in ("NN", "NNP") or not _can_be_verb(singular(words[place].lower())):
        return False
    if after in ("DT", "PRP$") or words[first].lower() in _SOMEONE:
        return True
    while first >= 0 and tags[first] in ("NN", "NNP", "JJ", "VBN", "VBG") and words[first].lower() not in _MANY:
        first -= 1
    return first >= 0 and words[first].lower() in _ONE and after not in ("VBZ", "VBP", "VBD", "MD")


def _noun_or_verb(word: str, tag: str, previous: str, before: str, after: str) -> str:
    if tag == "NNS":
        return "VBZ" if previous in _SINGULAR_SUBJECTS and after in ("DT", "IN", "PRP", "PRP$", "TO") else tag
    if word.endswith("ing") and before in ("NN", "NNS", "NNP") and after in ("DT", "PRP$"):
        return "VBG"  # a man painting a fence
    governed = (
        before in ("TO", "MD")
        or previous in _SUBJECTS
        or previous in _GOVERNORS
        or (before in ("START", "PUNCT") and after in ("DT", "PRP", "PRP$"))
        or (before == "NNS" and after in _FOLLOWS_VERB and previous not in _PLURAL_FIRST)
    )
    if governed and _can_be_verb(word):
        return "VB"
    return tag


def _verb_or_noun(word: str, tag: str, previous: str, before: str, after: str, following: str) -> str:
    irregular = not word.endswith("ed")
    if tag == "MD":
        return "NN" if before in ("DT", "PRP$") else tag  # a can
    if tag in ("VBD", "VBN"):
        if irregular and following == "of" and before in ("DT", "START", "CD") and word + "s" in lexicon:
            return "NN"  # a set of
        if irregular and before == "JJ" and after in ("IN", "END", "PUNCT"):
            return "NN"  # a red rose
        return (
            "NN"
            if before in ("DT", "PRP$") and (tag == "VBD" or irregular) and after in ("PUNCT", "IN", "END")
            else tag
        )
    opened = before in _OPENS_NOUN and previous not in ("that", "this", "these", "those", "all", "both")
    described = before in ("JJ", "CD") or (before == "IN" and previous not in ("that", "if", "because", "while", "as"))
    if tag == "VB" and (
        (before == "START" and following == "of") or (before == "NN" and after in ("IN", "VBG", "VBN", "PUNCT", "END"))
    ):
        return "NN"  # set of, gold watch
    if not (opened or described):
        return tag
    return "NNS" if tag == "VBZ" else "NN"


def _names_people(word: str) -> bool:
    return word in _PEOPLES or word.endswith(("ese", "ish", "ian", "ean", "ican"))


class LexiconTagger:
    """Sets tag and part of speech of every token of a spaCy document."""

    def __init__(self, nlp: Language) -> None:
        add = nlp.vocab.strings.add
        self._hashes = {
            tag: (add(tag), add(_POS.get(tag, "X"))) for tag in {*lexicon.values(), *_POS, *_FIXED.values()}
        }

    def __call__(self, doc: Doc) -> Doc:
        rows = [self._hashes[tag] for tag in tag_words([token.text for token in doc])]
        doc.from_array(["TAG", "POS"], np.array(rows, dtype=np.uint64).reshape(-1, 2))
        return doc


@Language.factory(FACTORY, assigns=["token.tag", "token.pos"])
def make_lexicon_tagger(nlp: Language, name: str) -> LexiconTagger:
    """Make the component; spaCy calls this for `nlp.add_pipe("lexicon_tagger")`."""
    return LexiconTagger(nlp)

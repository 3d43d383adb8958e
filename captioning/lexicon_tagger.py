"""The offline tagger: a spaCy component on TextBlob's word list, with context rules that settle noun or not.

TextBlob's lexicon (Brill's, from the Brown corpus and the Penn Treebank) gives each word its most frequent tag and
its suffix rules guess the rest. Its own 290 context rules are slow and, on English web text, no better than none,
so the rules here are few and look at one question only: is this word, in this place, a noun? They are grammar
(what follows a determiner, what follows a modal), not fitted to any corpus.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import numpy as np


@contextmanager
def _standing_in(name: str, module: ModuleType | None) -> Iterator[None]:
    """A package is another one while others are imported, and None is a missing one; one that is loaded stays."""
    sys.modules.setdefault(name, module)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if sys.modules[name] is module:
            del sys.modules[name]


with _standing_in("torch", None):  # spaCy loads it where it is, for two seconds, and the lexicon needs none
    from spacy.language import Language
    from spacy.tokens import Doc

_textblob, _spec = ModuleType("textblob"), find_spec("textblob")
_textblob.__path__ = _spec.submodule_search_locations or [] if _spec else []
with _standing_in("textblob", _textblob):  # it loads NLTK and SciPy, and its word list needs neither
    from textblob.en import lexicon, parser

HYPHENATED = re.compile(
    r"[a-z]-[a-z]{3,}|"  # T-shirt, X-ray, e-mail, V-neck
    r"[a-z]{2,}-(?:up|in|out|off|down|by|over|on|through|away|go)s?|"  # close-up, drive-in, passer-by
    r"(?:self|mini|semi|co|ex|vice|half|mid|non|micro|tee|yo|go|ping|hip|tip|flip|tic|see|roly|wind|ice|hot|jack|teddy)-"
    r"[a-z]{2,}|"  # self-portrait, mini-skirt, co-pilot, tee-shirt, yo-yo, ping-pong, ice-cream, hot-dog
    r"merry-go-rounds?|(?:mother|father|sister|brother|daughter|son)s?-in-law|(?:passers|lookers|hangers)-(?:by|on)|"
    r"forget-me-nots?|lily-of-the-valley|jack-in-the-box(?:es)?|hide-and-seek|bric-a-brac|tic-tac-toe|walkie-talkies?",
    re.IGNORECASE,
)
"""Words that a hyphen holds together as one concept. Others are taken apart: in "black-and-white" or "coffee-table"
each word says what it says alone."""

_PARTICIPLES_WORDS = "built cut grown laid run made hands head worn spot straight drawn blown torn sold thrown"
_PARTICIPLES = frozenset(_PARTICIPLES_WORDS.split())
"""With a particle behind a hyphen they describe a noun: built-in, worn-out, hands-on; so does any word in -ed."""

APOSTROPHES = ("'", "\u2019")

FACTORY = "lexicon_tagger"
"""The name under which spaCy knows the component."""

_UNIVERSAL = (
    "NOUN: NN NNS; PROPN: NNP NNPS; VERB: VB VBD VBG VBN VBP VBZ; ADJ: JJ JJR JJS; ADV: RB RBR RBS WRB; "
    "PRON: PRP PRP$ WP WP$ EX; DET: DT PDT WDT; ADP: IN RP; PART: TO POS; CCONJ: CC; NUM: CD; AUX: MD; INTJ: UH; "
    "SYM: SYM; PUNCT: PUNCT"
)
"""Universal part of speech -> the Penn Treebank tags it takes in; any other tag is X."""

_PARTICLE = re.compile("(?:up|in|out|off|down|by|over|on|through|away)s?")

_FIXED_WORDS = {
    "PRP": "anyone anybody anything someone somebody something everyone everybody everything nobody nothing none "
    "myself yourself himself herself itself ourselves themselves mine yours hers ours theirs",
    "RB": "nt n't not",
    "MD": "ca wo m 'm ve 've 're 'll 'd ll",
    "UH": "ok okay yes oh wow hey please thanks lol haha",
    "JJ": "first second third last next teal beige turquoise maroon fuchsia cyan grayish greyish reddish",
    "NN": "foreground background close-up closeup t-shirt e-mail selfie",
}
"""Words whose tag does not hang on their place, or which the word list of 1992 gets wrong or does not know."""

_POS = {tag: pos for pos, _, tags in (line.partition(": ") for line in _UNIVERSAL.split("; ")) for tag in tags.split()}
_FIXED = {word: tag for tag, words in _FIXED_WORDS.items() for word in words.split()}

_PEOPLES = frozenset(
    ["arab", "czech", "dutch", "french", "german", "greek", "israeli", "iraqi", "muslim", "sikh", "swiss", "thai"]
)
"""Names of peoples that no ending gives away; before a noun they are adjectives."""

_SUBJECTS = {"i", "you", "we", "they", "who"}
_SINGULAR_SUBJECTS = {"he", "she", "it", "who", "which", "that", "this"}
_GOVERNORS = {"do", "does", "did", "let", "lets", "please", "not", "n't", "nt", "never"}
_OPENS_NOUN = frozenset(("DT", "PRP$", "POS", "PDT", "WP$"))
_ENDS_NOUN = frozenset(("IN", "PUNCT", "CC", "VBZ", "VBD", "VBP", "MD", "TO", "WDT", "WP", "WRB", "END", "RB", "PRP"))
_SENTENCE_END = frozenset((".", "!", "?", "...", "\n", ":"))


def tag_words(words: list[str]) -> list[str]:
    """Penn Treebank tags of the tokens of one text, which may hold several sentences."""
    tags = []
    start = True
    for word in words:
        tags.append(_word_tag(word, start))
        start = word in _SENTENCE_END or (start and not word[:1].isalnum())
    _settle(words, tags)
    return tags


def lemma_of(word: str, tag: str) -> str:
    """The lower-cased base form of a noun; other words are only lower-cased."""
    lower = word.lower()
    if tag in ("NNS", "NNPS") or (tag == "NN" and _is_odd_plural(lower)):
        return _singular(lower)
    if tag == "NNP" and lower.endswith(("ians", "ists", "icans")):
        return lower[:-1]
    return lower


@lru_cache(maxsize=65536)
def _is_odd_plural(word: str) -> bool:
    """A plural that no ending shows to the word list: cacti, snowmen, forefeet."""
    if word in _SINGULARS:
        return not word.endswith("s")
    return any(word.endswith(plural) and word.removesuffix(plural) in lexicon for plural, _ in _LONGER)


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
    if HYPHENATED.fullmatch(lower):
        return _compound_tag(lower)
    if start and word.istitle() and lower in lexicon:
        return str(lexicon[lower])
    if word in lexicon:
        return str(lexicon[word])
    if word[0].isdigit():
        return "CD" if not word.endswith("s") else "NNS"
    if word.istitle():
        one = _singular(lower)
        return "NNS" if start and one != lower and _is_noun_of_the_list(one) else "NNP"
    if "-" in word:
        return _compound_tag(lower)
    return str(parser.find_tags([word])[0][1])


def _compound_tag(word: str) -> str:
    """A hyphenated word is an adjective (dark-haired, U-shaped) unless it is a noun that a hyphen holds together, or
    ends like a noun phrase (T-shirts)."""
    first, last = word.split("-", 1)[0], word.rsplit("-", 1)[1]
    if HYPHENATED.fullmatch(word):
        plural = last.endswith("s") or first.endswith("s")
        if _PARTICLE.fullmatch(last):
            return "JJ" if first.endswith("ed") or first in _PARTICIPLES else "NNS" if plural else "NN"
        tag = str(lexicon.get(last, "NN"))
        if (tag.startswith(("NN", "VB")) and not last.endswith(("ed", "ing"))) or word.count("-") > 1:
            return "NNS" if _singular(word) != word else "NN"
        return "JJ"
    return "NNS" if lexicon.get(last) == "NNS" else "JJ"


@lru_cache(maxsize=65536)
def _can_be_verb(word: str) -> bool:
    """The word list knows its -ing or -ed form."""
    stem = word.removesuffix("e")
    return stem + "ing" in lexicon or stem + "ed" in lexicon


def _settle(words: list[str], tags: list[str]) -> None:
    """Decide noun or not by the neighbours, left to right, in place."""
    for place, tag in enumerate(tags):
        before = tags[place - 1] if place else "START"
        after = tags[place + 1] if place + 1 < len(tags) else "END"
        word, previous = words[place].lower(), words[place - 1].lower() if place else ""
        if tag in ("NN", "NNS"):
            tags[place] = _noun_or_verb(word, tag, previous, before, after)
        elif tag in ("VB", "VBP", "VBZ", "VBD"):
            tags[place] = _verb_or_noun(tag, previous, before, after)
        elif tag == "VBG" and before in _OPENS_NOUN and after in _ENDS_NOUN and after != "RB":
            tags[place] = "NN"
        elif (
            tag == "JJ"
            and before in _OPENS_NOUN
            and words[place + 1 : place + 2] != ["-"]
            and after in ("PUNCT", "IN", "END", "VBZ", "VBD", "MD")
        ):
            tags[place] = "NN" if previous not in ("this", "that", "these", "those", "all") else tag
        elif tag == "NNP" and _names_people(word) and after in ("NN", "NNS", "NNP", "NNPS", "JJ"):
            tags[place] = "JJ"


def _noun_or_verb(word: str, tag: str, previous: str, before: str, after: str) -> str:
    if tag == "NNS":
        return "VBZ" if previous in _SINGULAR_SUBJECTS and after in ("DT", "IN", "PRP", "PRP$", "TO") else tag
    governed = (
        before in ("TO", "MD")
        or previous in _SUBJECTS
        or previous in _GOVERNORS
        or (before in ("START", "PUNCT") and after in ("DT", "PRP", "PRP$"))
    )
    if governed and _can_be_verb(word):
        return "VB"
    return tag


def _verb_or_noun(tag: str, previous: str, before: str, after: str) -> str:
    if tag == "VBD":
        return "NN" if before in ("DT", "PRP$") and after in ("PUNCT", "IN", "END") else tag
    opened = before in _OPENS_NOUN and previous not in ("that", "this", "these", "those", "all", "both")
    described = before in ("JJ", "CD") or (before == "IN" and previous not in ("that", "if", "because", "while", "as"))
    if not (opened or described):
        return tag
    return "NNS" if tag == "VBZ" else "NN"


def _names_people(word: str) -> bool:
    return word in _PEOPLES or word.endswith(("ese", "ish", "ian", "ean", "ican"))


_INVARIANT = (
    "people police clothes troops news series species dice sheep fish glasses sunglasses jeans trousers pants shorts "
    "undies scissors binoculars tights pyjamas pajamas goggles headquarters outskirts surroundings savings thanks "
    "goods physics politics mathematics athletics gymnastics electronics graphics means crossroads"
)
_IRREGULAR = (
    "men:man women:woman children:child feet:foot teeth:tooth geese:goose mice:mouse lice:louse oxen:ox lives:life "
    "leaves:leaf knives:knife wives:wife shelves:shelf loaves:loaf wolves:wolf halves:half calves:calf scarves:scarf "
    "hooves:hoof thieves:thief elves:elf pies:pie ties:tie movies:movie cookies:cookie zombies:zombie selfies:selfie "
    "buses:bus lenses:lens canvases:canvas irises:iris gases:gas viruses:virus shoes:shoe toes:toe canoes:canoe "
    "axes:axe cacti:cactus fungi:fungus octopi:octopus alumni:alumnus stimuli:stimulus nuclei:nucleus oases:oasis "
    "crises:crisis bases:base indices:index vertices:vertex matrices:matrix chateaux:chateau dwarves:dwarf "
    "phenomena:phenomenon criteria:criterion passers:passer"
)
_ENDS = (
    "women:woman men:man children:child people:people feet:foot teeth:tooth geese:goose mice:mouse shelves:shelf "
    "wives:wife knives:knife leaves:leaf loaves:loaf wolves:wolf calves:calf scarves:scarf hooves:hoof"
)
"""Plurals that longer words end in: bookshelves, forefeet, housewives."""
_IN_IE_WORDS = (
    "auntie beanie birdie bookie bootie bowtie brownie budgie calorie collie cookie cutie doggie foodie freebie "
    "genie goalie goodie groupie hippie hoodie hottie junkie kiddie lassie laddie magpie movie necktie newbie "
    "oldie onesie pinkie pixie prairie quickie roadie rookie scrunchie selfie sortie smoothie sweetie talkie "
    "techie townie veggie wedgie wellie yuppie zombie hankie cabbie eyrie eerie barbie indie homie nightie boogie "
    "zombie pie tie lie"
)
_IN_IE = frozenset(_IN_IE_WORDS.split())
_IN_CHE_WORDS = (
    "avalanche brioche cache cartouche cliche cliché creche crèche gouache niche pastiche porsche quiche psyche "
    "douche mustache moustache headache toothache backache earache heartache stomachache bellyache apache ache"
)
_IN_CHE = frozenset(_IN_CHE_WORDS.split())
_SINGULARS = {word: word for word in _INVARIANT.split()} | dict(pair.split(":") for pair in _IRREGULAR.split())
"""Plurals that the rules below get wrong, and words which are no plural though they look like one."""

_LONGER = [(plural, one) for plural, _, one in (pair.partition(":") for pair in _ENDS.split())]


@lru_cache(maxsize=65536)
def _singular(word: str) -> str:
    found = _SINGULARS.get(word)
    if found:
        return found
    head, hyphen, last = word.rpartition("-")
    if hyphen and last in ("by", "law", "on"):  # passers-by, mothers-in-law
        first, _, rest = word.partition("-")
        return f"{_singular(first)}-{rest}"
    if hyphen and last:
        return f"{head}-{_singular(last)}"
    for suffix, singular in _LONGER:
        if word.endswith(suffix):
            return word.removesuffix(suffix) + singular
    if word[-2:-1] in APOSTROPHES:  # CD's, the 90's
        return word[:-2]
    if not word.endswith("s") or word.endswith("ss") or not word.isalpha():  # 1990s, file.names
        return word
    if word.endswith(("us", "is")):  # menus and taxis, but cactus and iris
        return word[:-1] if _is_noun_of_the_list(word[:-1]) else word
    candidates = [word[:-1]]  # the likeliest first
    if word.endswith("ies"):
        candidates = (
            [word[:-1], word[:-3] + "y"] if word[:-1] in _IN_IE or len(word) <= 4 else [word[:-3] + "y", word[:-1]]
        )
    elif word.endswith("ches"):
        candidates = [word[:-1], word[:-2]] if word[:-1] in _IN_CHE else [word[:-2], word[:-1]]
    elif word.endswith(("zzes", "sses")):
        candidates = [word[:-2], word[:-3]]
    elif word.endswith(("shes", "xes", "uses", "oes")):
        candidates = [word[:-2], word[:-1]]
    elif word.endswith(("ses", "zes")):
        candidates = [word[:-1], word[:-2]]
    return next((word for word in candidates if _is_noun_of_the_list(word)), candidates[0])


def _is_noun_of_the_list(word: str) -> bool:
    """The word list has it as a noun, or has a word that it ends in: horse + shoe."""
    if word in _IN_IE or word in _IN_CHE or str(lexicon.get(word, "")).startswith("NN"):
        return True
    return word.endswith(
        ("shoe", "toe", "house", "horse", "nose", "hose", "case", "vase", "rose", "purse", "nurse", "cheese")
    )


class LexiconTagger:
    """Sets tag, part of speech and lemma of every token of a spaCy document."""

    def __init__(self, nlp: Language) -> None:
        self._add = nlp.vocab.strings.add
        self._hashes = {
            tag: (self._add(tag), self._add(_POS.get(tag, "X"))) for tag in {*lexicon.values(), *_POS, *_FIXED.values()}
        }

    def __call__(self, doc: Doc) -> Doc:
        words = [token.text for token in doc]
        add, hashes = self._add, self._hashes
        rows = [(*hashes[tag], add(lemma_of(word, tag))) for word, tag in zip(words, tag_words(words), strict=True)]
        values = np.array(rows, dtype=np.uint64).reshape(-1, 3)
        doc.from_array(["TAG", "POS", "LEMMA"], values)  # type: ignore[arg-type]
        return doc


@Language.factory(FACTORY, assigns=["token.tag", "token.pos", "token.lemma"])
def make_lexicon_tagger(nlp: Language, name: str) -> LexiconTagger:
    """Make the component; spaCy calls this for `nlp.add_pipe("lexicon_tagger")`."""
    return LexiconTagger(nlp)

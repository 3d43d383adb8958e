"""TextBlob's word list of 94,000 words (Brill's, of 1992), and the singulars that it proves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def standing_in(name: str, module: ModuleType | None) -> Iterator[None]:
    """A package is another one while others are imported, and None is a missing one; one that is loaded stays."""
    sys.modules.setdefault(name, module)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if sys.modules[name] is module:
            del sys.modules[name]


_textblob, _spec = ModuleType("textblob"), find_spec("textblob")
_textblob.__path__ = _spec.submodule_search_locations or [] if _spec else []
with standing_in("textblob", _textblob):  # it loads NLTK and SciPy, and its word list needs neither
    from textblob.en import inflect, lexicon, parser

__all__ = ["is_joined", "is_singular_noun", "lemma_of", "lexicon", "parser", "singular", "standing_in"]

_INVARIANT = (
    "people police clothes troops news series species dice sheep fish glasses sunglasses eyeglasses jeans trousers "
    "pants sweatpants underpants shorts undies overalls dungarees slacks knickers scissors tweezers tongs binoculars "
    "tights pyjamas pajamas goggles outskirts surroundings savings thanks goods physics politics mathematics athletics "
    "gymnastics aerobics acrobatics ethics electronics graphics means crossroads billiards darts draughts barracks "
    "suds kudos feces atlas pancreas"
)
_IRREGULAR = (
    "lives:life dwarves:dwarf pies:pie ties:tie bases:base axes:axe busses:bus dormice:dormouse titmice:titmouse "
    "lice:louse oxen:ox indices:index vertices:vertex vortices:vortex matrices:matrix appendices:appendix "
    "phenomena:phenomenon criteria:criterion bacteria:bacterium strata:stratum aquaria:aquarium larvae:larva "
    "algae:alga vertebrae:vertebra syllabi:syllabus octopi:octopus passers:passer monies:money "
    "handkerchieves:handkerchief mermen:merman yeomen:yeoman"
)
_TAILS = (
    "women:woman men:man children:child people:people feet:foot teeth:tooth geese:goose mice:mouse wives:wife "
    "knives:knife leaves:leaf sheaves:sheaf loaves:loaf elves:elf wolves:wolf calves:calf halves:half scarves:scarf "
    "wharves:wharf hooves:hoof thieves:thief"
)
"""Plurals that longer words end in: bookshelves, forefeet, housewives."""
_MORE = (
    "auntie barbie beanie birdie bogie bookie bootie bowtie brasserie brownie budgie cabbie collie coterie cowrie "
    "cutie doggie eerie eyrie foodie freebie goalie goodie groupie hankie hippie hoagie hoodie hottie indie junkie "
    "kiddie laddie lassie lie magpie meanie menagerie necktie newbie nightie oldie onesie organdie patisserie pinkie "
    "pixie quickie reverie roadie rookie rotisserie scrunchie selfie smoothie softie sortie sweetie talkie techie "
    "townie valkyrie veggie walkie wedgie wellie yuppie zombie brioche cartouche cliché crèche douche gouache "
    "pastiche porsche quiche apache crevasse floe aloe oboe sloe doe mistletoe tiptoe emu gnu tutu bikini kiwi panini "
    "rabbi safari sari spaghetti yeti zucchini fez klutz topaz atlas cactus christmas crocus iris pancreas penis "
    "portcullis rhinoceros trellis gateau roe ganache microfiche hippopotamus daiquiri bonsai samurai okapi jacuzzi "
    "origami sushi broccoli ferrari martini haiku"
)
"""Nouns that the word list lacks and whose plurals the endings alone get wrong."""
_ENDINGS = (
    "theses:thesis yses:ysis opses:opsis/opse gnoses:gnosis ouses:ouse uses:us/use sses:ss/s/sse ses:se/s/sis "
    "zzes:zz/z tzes:tz zes:ze/z ches:ch/che shes:sh/she xes:x/xe oes:o/oe ies:y/ie s:"
)
"""Endings of plurals, and those of their singulars, the likeliest first."""
_LEARNED = {"i": "us", "ae": "a", "eaux": "eau"}
"""The same for words whose singular has to be in the word list: fungi, but not spaghetti."""

_WHOLE = frozenset((*_INVARIANT.split(), *inflect.singular_uninflected, *inflect.singular_s))
_MORE_NOUNS = frozenset(_MORE.split())
_SINGULARS, _LONGER = (dict(pair.split(":") for pair in pairs.split()) for pairs in (_IRREGULAR, _TAILS))
_REGULAR = [(plural, ones.split("/")) for plural, _, ones in (pair.partition(":") for pair in _ENDINGS.split())]


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """The singular of a lower-cased noun; of the possible ones, that which the word list has."""
    if word in _WHOLE:
        return word
    if word in _SINGULARS:
        return _SINGULARS[word]
    head, hyphen, last = word.rpartition("-")
    if hyphen and (last in ("by", "on", "law", "chief") or "-of-" in word):  # passers-by, mothers-in-law
        first, _, rest = word.partition("-")
        return f"{singular(first)}-{rest}"
    if hyphen and last:
        return f"{head}-{singular(last)}"
    if word.endswith(tuple(_LONGER)):
        plural = next(filter(word.endswith, _LONGER))
        stem = word.removesuffix(plural)
        if not stem or lexicon.get(word) == "NNS" or _is_first(stem):
            return stem + _LONGER[plural]
    if word[1:].endswith("'s"):  # CD's, the 90's
        return word[:-2]
    if word.endswith(tuple(_LEARNED)) and word not in _MORE_NOUNS:
        plural = next(filter(word.endswith, _LEARNED))
        one = word.removesuffix(plural) + _LEARNED[plural]
        return one if is_singular_noun(one) else word
    if not word.endswith("s") or word.endswith("ss") or not word.isalpha():  # 1990s, file.names
        return word
    if word.endswith(("us", "is")):  # menus and taxis, but cactus and iris
        return word[:-1] if is_singular_noun(word[:-1]) else word
    if word.endswith("ies") and len(word) == 4:  # dies, lies
        return word[:-1]
    plural, endings = next((plural, endings) for plural, endings in _REGULAR if word.endswith(plural))
    ones = [word.removesuffix(plural) + ending for ending in endings]
    tests = (_MORE_NOUNS.__contains__, is_singular_noun, is_joined, lexicon.__contains__)
    return next((one for holds in tests for one in ones if holds(one)), ones[0])


def lemma_of(word: str, tag: str) -> str:
    """The lower-cased base form of a noun; other words are only lower-cased."""
    lower = word.lower()
    if tag in ("NNS", "NNPS"):
        return singular(lower)
    if tag == "NN":  # cacti, snowmen and scarves, which the word list lacks or takes for singulars
        one = singular(lower)
        return one if is_singular_noun(one) or not lower.endswith("s") else lower
    if tag == "NNP" and lower.endswith(("ians", "ists", "icans")):
        return lower[:-1]
    return lower


def is_singular_noun(word: str) -> bool:
    """The word list has it as a singular noun."""
    return word in _MORE_NOUNS or lexicon.get(word) in ("NN", "NNP")


def is_joined(word: str) -> bool:
    """A word of the list before a noun of the list: horse + shoe, ear + ache."""
    return any(_is_first(word[:cut]) and is_singular_noun(word[cut:]) for cut in range(3, len(word) - 3))


def _is_first(word: str) -> bool:
    """It can be the first of two words that became one."""
    return len(word) > 2 and lexicon.get(word, "FW") not in ("FW", "NNP", "NNS")

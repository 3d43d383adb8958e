"""The nouns of captions: spaCy pipelines behind one interface, and the job `nouns`. A noun is a token that the pipeline
tags as common noun or proper noun (Universal POS NOUN or PROPN) and that holds a letter; its concept is the lower-cased
lemma. A word is a token that is neither punctuation nor white space, so "don't" is two words, as in spaCy and the Penn
Treebank. Compounds count as their words, or, where the recipe sets `compounds`, as one concept in place of them: a run
of adjacent nouns, all common or all proper ("coffee table", "eiffel tower", but not "paris street"), of at most
`LONGEST_COMPOUND`. Only the last of them, the head, is a lemma: "sports cars" are a "sports car". A longer run is a
list of tags, and counts as its words. Anything between nouns, a hyphen or an 's as well, parts them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engine.map_job import MapJob
from engine.runner import Progress
from models.tokenizers import WORDS, find_tokenizer, load_tokenizer
from schemas import recipe
from schemas.columns import BESIDE, NOUN_SOURCES
from schemas.late import late

with late(__name__):
    import pyarrow as pa

    from captioning.texts.text import kept_mask, raw_offers
    from schemas import tables

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

LEXICON = "lexicon"
"""The offline extractor: TextBlob's word list as a spaCy component, see `captioning.lexicon_tagger`."""

RULES = 2
"""Goes up by one where this code finds other nouns in the same caption, so that no dataset mixes those of two rules."""

NOT_NEEDED = ["parser", "ner", "senter", "entity_linker", "textcat"]
"""Components of an installed model that nouns do not depend on."""

LONGEST_COMPOUND = 4
"""Largest number of nouns that count as one concept."""

_DRINKS = frozenset(
    ("wine", "beer", "champagne", "cocktail", "drinking", "shot", "water", "martini", "juice", "whiskey")
)

ROWS_AT_ONCE = 256

KEPT_STRINGS = 200_000
"""Strings (words, and pieces of text between spaces) that an extractor keeps; it forgets further ones."""


def map_job(data_recipe: recipe.DataRecipe) -> MapJob:
    """The job as a map stage: reads `raw_captions`, `captions` and `selection`, writes `nouns`, two rows per input.
    Each extra captioner adds its table and a row per input."""
    extractor, extra_captioners = data_recipe.nouns.extractor, tuple(data_recipe.caption.beside)
    compounds = data_recipe.nouns.compounds
    tokenizer = data_recipe.mix.tokenizer
    return MapJob(
        job="nouns",
        outputs=("nouns",),
        inputs=("raw_captions", "captions", "selection", *(f"{BESIDE}{name}" for name in extra_captioners)),
        build=partial(NounWorker, extractor, tokenizer, extra_captioners, compounds),
        knobs={
            "nouns.extractor": extractor,
            "nouns.compounds": compounds,
            "nouns.rules": RULES,
            "mix.tokenizer": tokenizer,
        },
        rows_per_input=len(NOUN_SOURCES) + len(extra_captioners),
        needs=(partial(find_extractor, extractor), partial(find_tokenizer, tokenizer)),
    )


@cache
def _long_run() -> re.Pattern[str]:
    """spaCy's tokenizer takes time quadratic in the number of signs at the ends of what has no space: a space parts
    it."""
    from captioning.texts.text import SPACELESS

    return re.compile(rf"(?:[^\w\s]|_){{50}}|[^\s{SPACELESS}]{{150}}")


def find_extractor(name: str) -> None:
    """Check that a spaCy model of that name is installed, or is a folder; nothing is imported. Raises ValueError: the
    model is not installed; the message has the command that installs it."""
    package = find_spec(name) if name.isidentifier() else None
    if name != LEXICON and (package is None or package.origin is None) and not Path(name).is_dir():
        raise _not_installed(name)


def _not_installed(name: str) -> ValueError:
    return ValueError(
        f"nouns.extractor: the spaCy model {name!r} is not installed; install it with "
        f"`python -m spacy download {name}` or choose nouns.extractor={LEXICON}, which needs no model"
    )


def load_extractor(name: str, compounds: bool = False) -> NounExtractor:
    """The extractor that a recipe names.

    Args:
        name: `lexicon`, or an installed spaCy model such as en_core_web_sm.
        compounds: "coffee table" is one concept, in place of its words.

    Raises:
        ValueError: the model is not installed (the message has the command that installs it) or cannot tag.
    """
    find_extractor(name)
    if name == LEXICON:
        from captioning.lexicon_tagger import FACTORY  # before spaCy: it does without torch

    import spacy  # takes half a second; only workers pay it

    if name == LEXICON:
        nlp = spacy.blank("en")
        nlp.add_pipe(FACTORY)
        return NounExtractor(nlp, compounds)
    try:
        nlp = spacy.load(name, exclude=NOT_NEEDED)
    except OSError:
        raise _not_installed(name) from None
    if not {"tagger", "morphologizer"} & set(nlp.pipe_names):
        parts = ", ".join(nlp.pipe_names) or "a tokenizer"
        raise ValueError(
            f"nouns.extractor: the spaCy model {name!r} has no tagger (only {parts}); "
            f"choose one with a tagger, such as en_core_web_sm, or {LEXICON}"
        )
    return NounExtractor(nlp, compounds)


@lru_cache(maxsize=1)
def shared_extractor(name: str, compounds: bool) -> NounExtractor:
    """The extractor that this process loaded last; otherwise as `load_extractor`, which takes over a second."""
    return load_extractor(name, compounds)


class NounExtractor:
    """Finds nouns with a spaCy pipeline. spaCy takes text apart four times as fast where it knows the pieces, but what
    it learns inside a memory zone is forgotten with it. So the first texts are read outside of one, and once
    `KEPT_STRINGS` are known (some 60 MB), its memory does not grow with what it has read."""

    def __init__(self, nlp: Language, compounds: bool = False) -> None:
        from captioning.hyphens import hold_together, plain
        from captioning.word_list import lemma_of

        hold_together(nlp)
        nlp.max_length = 10_000_000  # the limit of spaCy is there for parser and ner, which are not here
        if hasattr(nlp.tokenizer, "max_cache_size"):  # a tokenizer of another make has no such cache
            nlp.tokenizer.max_cache_size = KEPT_STRINGS
        self._nlp = nlp
        self._compounds = compounds
        self._plain = plain
        self._lemma_of = lemma_of if nlp.lang == "en" else None
        self._lemmas: dict[tuple[float, ...], str] = {}
        self._most_strings = len(nlp.vocab.strings) + KEPT_STRINGS

    def tag(self, sentences: Iterable[list[str]]) -> list[list[tuple[str, bool]]]:
        """For each sentence of tokens, one (lower-cased lemma, is it a noun) per token."""
        from spacy.tokens import Doc

        with self._zone():
            docs = self._nlp.pipe(Doc(self._nlp.vocab, words=list(map(self._plain, words))) for words in sentences)
            return [[(self._lemma(token), _is_noun(token)) for token in doc] for doc in docs]

    def nouns(self, texts: Iterable[str]) -> list[list[str]]:
        """For each caption, its nouns (lemmas, and joined compounds) in reading order, repeats included."""
        return [lemmas for lemmas, _ in self.count(texts)]

    def count(self, texts: Iterable[str]) -> list[tuple[list[str], int]]:
        """For each caption, its nouns as `nouns` gives them, and its number of words."""
        with self._zone():
            return [self._count(doc) for doc in self._nlp.pipe(map(self._parted, texts))]

    def _parted(self, text: str) -> str:
        return _long_run().sub(r"\g<0> ", self._plain(text))

    def _count(self, doc: Doc) -> tuple[list[str], int]:
        """The nouns and the number of words of one text. Tokens that were met before become no Python objects."""
        from spacy.parts_of_speech import NOUN, PROPN

        found: list[tuple[int, str]] = []
        num_words = 0
        rows = doc.to_array(["POS", "IS_PUNCT", "IS_SPACE", "ORTH", "TAG", "LEMMA"]).reshape(-1, 6).tolist()
        for place, (pos, is_punct, is_space, *key) in enumerate(rows):
            num_words += not (is_punct or is_space)
            if pos in (NOUN, PROPN):
                lemma = self._lemmas.get(tuple(key))
                if lemma is None:
                    if len(self._lemmas) >= KEPT_STRINGS:
                        self._lemmas.clear()
                    token = doc[place]
                    lemma = self._lemmas[tuple(key)] = self._lemma(token) if _is_noun(token) else ""
                if lemma:
                    found.append((place, "glass" if lemma == "glasses" and _are_for_drinks(doc, place) else lemma))
        return (_joined(doc, found) if self._compounds else [lemma for _, lemma in found]), num_words

    def _lemma(self, token: Token) -> str:
        """The lower-cased base form; of English nouns by the word list, as models have "vas" for vases."""
        if self._lemma_of is not None and (token.tag_ == "NNS" or token.lemma_ in ("", token.text)):
            return self._lemma_of(token.text, token.tag_)
        return (token.lemma_ or token.text).lower()

    def _zone(self) -> AbstractContextManager[object]:
        """A context that forgets new strings at its end, once the extractor knows `KEPT_STRINGS`."""
        return self._nlp.memory_zone() if len(self._nlp.vocab.strings) >= self._most_strings else nullcontext()


class NounWorker:
    """The worker. It builds one pipeline and one tokenizer."""

    def __init__(
        self, extractor: str, tokenizer: str = WORDS, extra_captioners: Sequence[str] = (), compounds: bool = False
    ) -> None:
        """Load the extractor and the tokenizer: the one that cuts the mix, so that counts compare. `extra_captioners`:
        their captions are read besides those of `NOUN_SOURCES`."""
        self._extractor = shared_extractor(extractor, compounds)
        self._tokenizer = load_tokenizer(tokenizer)
        self._extra_captioners = tuple(extra_captioners)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """The nouns of every caption of each row; a row that was not kept, or a missing caption, has null."""
        raws = raw_offers(inputs["raw_captions"], inputs["selection"])
        names = (*NOUN_SOURCES, *self._extra_captioners)
        sources = len(names)
        written = [raws, inputs["captions"], *(inputs[f"{BESIDE}{name}"] for name in self._extra_captioners)]
        captions = list(_captions(written, kept_mask(raws, inputs["selection"])))
        found: list[tuple[list[str] | None, int | None, int | None]] = []
        for first in range(0, len(captions), ROWS_AT_ONCE * sources):
            some = captions[first : first + ROWS_AT_ONCE * sources]
            texts = [caption for caption in some if caption is not None]
            counted = zip(self._extractor.count(texts), self._tokenizer.count(texts), strict=True)
            for caption in some:
                (nouns, num_words), num_tokens = ((None, None), None) if caption is None else next(counted)
                found.append((nouns, num_words, num_tokens))
            progress(len(some) // sources)
        ids = zip(raws["row_id"].to_pylist(), raws["image_id"].to_pylist(), strict=True)
        repeated = [pair for pair in ids for _ in range(sources)]
        return {
            "nouns": pa.table(
                {
                    "row_id": [row_id for row_id, _ in repeated],
                    "image_id": [image_id for _, image_id in repeated],
                    "caption_source": list(names) * raws.num_rows,
                    "nouns": [nouns for nouns, _, _ in found],
                    "num_words": [num_words for _, num_words, _ in found],
                    "num_tokens": [num_tokens for _, _, num_tokens in found],
                    "tokenizer": [None if nouns is None else self._tokenizer.name for nouns, _, _ in found],
                },
                schema=tables.schema_of("nouns"),
            )
        }


def _captions(written: Sequence[pa.Table], kept: list[bool]) -> Iterator[str | None]:
    """Per row its captions in the order of the tables; None where there is none."""
    for row_kept, *captions in zip(kept, *(table["caption"].to_pylist() for table in written), strict=True):
        yield from captions if row_kept else [None] * len(captions)


def _joined(doc: Doc, found: list[tuple[int, str]]) -> list[str]:
    """Nouns in reading order, each with its place and lemma, as concepts: adjacent nouns of one kind are one."""
    runs: list[list[tuple[Token, str]]] = []
    for place, lemma in found:
        token, last = doc[place], runs[-1][-1][0] if runs else None
        if last is not None and place == last.i + 1 and token.pos == last.pos and last.whitespace_:
            runs[-1].append((token, lemma))
        else:
            runs.append([(token, lemma)])
    concepts = []
    for run in runs:
        if len(run) > LONGEST_COMPOUND:
            concepts += [lemma for _, lemma in run]
        else:
            concepts.append(" ".join([*(token.text.lower() for token, _ in run[:-1]), run[-1][1]]))
    return concepts


def _are_for_drinks(doc: Doc, place: int) -> bool:
    """Wine glasses, and glasses of beer."""
    return (place > 0 and doc[place - 1].lower_ in _DRINKS) or doc[place + 1 : place + 2].text.lower() == "of"


def _is_noun(token: Token) -> bool:
    return token.pos_ in ("NOUN", "PROPN") and any(map(str.isalpha, token.text))

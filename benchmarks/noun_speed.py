"""Nouns of captions from raw text: rate on one core beside spaCy's tokenizer alone, hours of 33 million images, F1.

`NOUN_MODEL=FOLDER` scores an installed spaCy model besides the lexicon.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import spacy

from benchmarks.made_captions import RAW_WORDS, SYNTHETIC_WORDS, CaptionWriter
from captioning.nouns import LEXICON, ROWS_AT_ONCE, NounExtractor, NounWorker, load_extractor
from models.tokenizers import load_tokenizer
from schemas import tables

if TYPE_CHECKING:
    from spacy.language import Language

NUM_RAW, NUM_SYNTHETIC, ROUNDS = 4096, 1024, 3
NUM_IMAGES, NUM_CORES = 33_000_000, 100
TOKENS_GOAL, F1_GOAL, LEMMA_GOAL = 100_000, 0.93, 0.97
TREEBANK = "nouns/en_ewt-ud-dev.conllu"
"""Below the folder that SIGMA_FIXTURES names."""
SENTENCES = Path(__file__).parents[1] / "tests/captioning/nouns_of_captions.tsv"
"""300 caption sentences with their nouns, annotated by hand; the rules were looked over on the odd lines only."""


def nouns_of_captions(_: Path) -> Iterator[str]:
    """Medians of `ROUNDS` after one that is not counted, seconds of the process's CPU, other captions in each round.

    Both keep what they have learned of other captions, as a worker does from part to part.
    """
    extractor, blank = load_extractor(LEXICON), spacy.blank("en")
    per_image = 0.0
    for length, words, num in (("raw", RAW_WORDS, NUM_RAW), ("synthetic", SYNTHETIC_WORDS, NUM_SYNTHETIC)):
        tokens_per_s, alone_per_s, captions_per_s = [], [], []
        for number in range(1 + ROUNDS):
            texts = captions(length, num, seed=1 + number)
            begun = time.process_time()
            num_tokens = tokenize(blank, texts)
            alone = time.process_time() - begun
            begun = time.process_time()
            extract(extractor, texts)
            ours = time.process_time() - begun
            if number == 0:
                continue
            tokens_per_s.append(num_tokens / ours)
            alone_per_s.append(num_tokens / alone)
            captions_per_s.append(num / ours)
        rate = statistics.median(tokens_per_s)
        ratio = statistics.median(a / b for a, b in zip(tokens_per_s, alone_per_s, strict=True))
        per_image += 1 / statistics.median(captions_per_s)
        yield (
            f"| nouns, {length} captions of about {words} words, 1 core | {rate:,.0f} tokens/s, "
            f"{statistics.median(captions_per_s):,.0f} captions/s | spaCy's tokenizer alone "
            f"{statistics.median(alone_per_s):,.0f} tokens/s | {ratio:.2f} | {TOKENS_GOAL:,} tokens/s, "
            f"{reached(rate >= TOKENS_GOAL)} |"
        )
    yield projection("nouns of both captions", per_image)


def nouns_worker(_: Path) -> Iterator[str]:
    """The whole worker: both captions of a row, their tokens counted, the table made; and what counting takes of it."""
    worker, tokenizer = NounWorker(LEXICON), load_tokenizer("words")
    per_image, shares = [], []
    for number in range(1 + ROUNDS):
        raws = captions("raw", NUM_SYNTHETIC, seed=11 + number)
        synthetics = captions("synthetic", NUM_SYNTHETIC, seed=11 + number)
        given = inputs(raws, synthetics)
        begun = time.process_time()
        worker(given, lambda *_: None)
        whole = time.process_time() - begun
        begun = time.process_time()
        tokenizer.count(raws + synthetics)
        counting = time.process_time() - begun
        if number == 0:
            continue
        per_image.append(whole / NUM_SYNTHETIC)
        shares.append(counting / whole)
    yield (
        f"| worker of `nouns`, both captions | {1 / statistics.median(per_image):,.0f} images/s, 1 core | "
        f"counting their tokens by `words` {100 * statistics.median(shares):.1f} % of its time | | |"
    )
    yield projection("worker of `nouns`", statistics.median(per_image))


def nouns_agreement(_: Path) -> Iterator[str]:
    """F1 against a hand: 300 caption sentences, and web text (UD English EWT dev) where `SIGMA_FIXTURES` holds it.

    From raw text the lemmas of a sentence are compared as multisets. At gold tokens, noun or not and the lemmas apart.
    """
    odd, even = halves()
    path = Path(os.environ.get("SIGMA_FIXTURES", "")) / TREEBANK
    for name in filter(None, (LEXICON, os.environ.get("NOUN_MODEL"))):
        extractor = load_extractor(name)
        shown = Path(name).name
        yield (
            f"| {shown}: caption sentences, 150 that the rules were looked over on, 150 others | "
            f"F1 {agreement(extractor, odd):.3f}, {agreement(extractor, even):.3f} | | | |"
        )
        found = [noun for nouns in extractor.nouns([text for text, _ in odd + even]) for noun in nouns]
        by_hand = [noun for _, nouns in odd + even for noun in nouns]
        yield (
            f"| {shown}: nouns per caption sentence, distinct nouns | {len(found) / 300:.2f}, {len(set(found))} | "
            f"by hand {len(by_hand) / 300:.2f}, {len(set(by_hand))} | | |"
        )
        if not path.is_file():
            yield f"| {shown}: nouns of web text | skipped: no {TREEBANK} below SIGMA_FIXTURES | | | |"
            continue
        sentences = treebank(path)
        tagged = extractor.tag([[word for word, _, _ in sentence] for sentence in sentences])
        gold = [token for sentence in sentences for token in sentence]
        tokens = [token for sentence in tagged for token in sentence]
        hits = sum(noun and is_noun for (_, _, noun), (_, is_noun) in zip(gold, tokens, strict=True))
        f1 = 2 * hits / (sum(noun for _, _, noun in gold) + sum(is_noun for _, is_noun in tokens))
        right = [lemma == given for (_, lemma, noun), (given, _) in zip(gold, tokens, strict=True) if noun]
        accuracy = sum(right) / len(right)
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
        nouns = [[lemma for _, lemma, noun in sentence if noun] for sentence in sentences]
        yield (
            f"| {shown}: nouns of web text, {len(gold):,} tokens of UD English EWT dev | F1 {f1:.3f}, lemmas "
            f"{accuracy:.3f}; from raw text {agreement(extractor, list(zip(texts, nouns, strict=True))):.3f} | | | "
            f"{F1_GOAL}, {LEMMA_GOAL}, {reached(f1 >= F1_GOAL and accuracy >= LEMMA_GOAL)} |"
        )


def halves() -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """The sentences of the odd lines and those of the even ones, each with its nouns."""
    lines = [line.split("\t") for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    sentences = [(text, nouns.split()) for text, nouns in lines]
    return sentences[::2], sentences[1::2]


def agreement(extractor: NounExtractor, sentences: list[tuple[str, list[str]]]) -> float:
    """F1 of the lemmas that an extractor finds, as multisets."""
    found = extractor.nouns([text for text, _ in sentences])
    hits = sum((Counter(nouns) & Counter(ours)).total() for (_, nouns), ours in zip(sentences, found, strict=True))
    return 2 * hits / (sum(len(nouns) for _, nouns in sentences) + sum(map(len, found)))


def captions(length: str, num: int, seed: int) -> list[str]:
    """Distinct captions of one of the two lengths."""
    writer = CaptionWriter(seed)
    texts = [writer.raw() if length == "raw" else writer.synthetic() for _ in range(num)]
    assert len(set(texts)) == num, "captions repeat"
    return texts


def tokenize(blank: Language, texts: list[str]) -> int:
    """Number of tokens."""
    return sum(map(len, blank.pipe(texts)))


def extract(extractor: NounExtractor, texts: list[str]) -> None:
    """What the worker asks of the extractor, in its batches."""
    for first in range(0, len(texts), 2 * ROWS_AT_ONCE):
        extractor.count(texts[first : first + 2 * ROWS_AT_ONCE])


def inputs(raws: list[str], synthetics: list[str]) -> dict[str, pa.Table]:
    """A part whose rows are all kept and have both captions."""
    num = len(raws)
    columns: dict[str, dict[str, list[object]]] = {
        "raw_captions": {"caption": list(raws), "removed": [[]] * num},
        "captions": {"caption": list(synthetics), "captioner": ["benchmark"] * num},
        "selection": {"kept": [True] * num, "subsets": [[]] * num},
    }
    found = {}
    for table, given in columns.items():
        schema = tables.SCHEMAS[table]
        ids = {"row_id": list(range(num)), "image_id": [f"{row:032x}" for row in range(num)]}
        filled = {name: ids.get(name) or given.get(name) or [None] * num for name in schema.names}
        found[table] = pa.table(filled, schema=schema)
    return found


def treebank(path: Path) -> list[list[tuple[str, str, bool]]]:
    """The sentences of a CoNLL-U file: (token, lower-cased lemma, is it a noun)."""
    sentences: list[list[tuple[str, str, bool]]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if not line:
            sentences.append([])
        elif fields[0].isdigit():
            sentences[-1].append((fields[1], fields[2].lower(), fields[3] in ("NOUN", "PROPN")))
    return [sentence for sentence in sentences if sentence]


def projection(what: str, per_image_s: float) -> str:
    """The line that says what `NUM_IMAGES` take on `NUM_CORES`."""
    hours = NUM_IMAGES * per_image_s / NUM_CORES / 3600
    return f"| {what}, projected: {NUM_IMAGES:,} images on {NUM_CORES} cores | {hours:.2f} h | | | |"


def reached(yes: bool) -> str:
    """As the tables say it."""
    return "reached" if yes else "missed"


BENCHMARKS = (nouns_of_captions, nouns_worker, nouns_agreement)

"""The tokenizer of InternLM, by sentencepiece itself, and the prompt as published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from captioning.captioners.share_captioner.language import BOS, EOS
from models.weights import read_json

QUESTION = "Analyze the image in a comprehensive and detailed manner."
"""The prompt of the published Share-Captioner."""
END_OF_HUMAN, END_OF_ANSWER = "<TOKENS_UNUSED_0>", "<TOKENS_UNUSED_1>"


class Tokenizer:
    """Text to ids and back. `tokenizer.model` is read by sentencepiece, whose merges follow the scores of the pieces.
    Converters that order merges by the place in the vocabulary give other ids here (`--c`, `" 's"`)."""

    def __init__(self, folder: Path) -> None:
        """Read `tokenizer.model`, and `added_tokens.json` if any. Raises ValueError: it is missing or another
        tokenizer."""
        path = folder / "tokenizer.model"
        if not path.is_file():
            raise ValueError(f"{path} is missing: copy it from the published repository")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError):
            raise ValueError(f"{path}: not a whole sentencepiece model; download it again") from None
        self.end_of_answer = self._pieces.piece_to_id(END_OF_ANSWER)
        if self._pieces.unk_id() in (self.end_of_answer, self._pieces.piece_to_id(END_OF_HUMAN)):
            raise ValueError(f"{path}: has no {END_OF_HUMAN} and {END_OF_ANSWER}: another tokenizer")
        added = folder / "added_tokens.json"
        self._added = {number: text for text, number in (read_json(added) if added.is_file() else {}).items()}

    def __len__(self) -> int:
        """Pieces of `tokenizer.model`, without the added tokens."""
        return self._pieces.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids, without BOS and EOS."""
        return self._pieces.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text; BOS, EOS and unknown ids are left out, tokens beyond the pieces are written as added ones."""
        text, run = "", []
        for number in ids:
            if number < len(self):
                if number not in (self._pieces.unk_id(), BOS, EOS):
                    run.append(number)
                continue
            text += self._pieces.decode(run) + self._added.get(number, "")
            run = []
        return text + self._pieces.decode(run)

    def prompt(self, question: str = QUESTION) -> tuple[list[int], list[int]]:
        """The ids before and after the picture, exactly as published: no spaces, BOS at the very front."""
        return [BOS, *self.encode("<|User|>:")], self.encode(f"{question}{END_OF_HUMAN}\n<|Bot|>:")

    def answer(self, ids: Sequence[int]) -> str:
        """The caption in generated ids: the text before the first end, without the spaces around it."""
        ends = [place for place, number in enumerate(ids) if number in (EOS, self.end_of_answer)]
        return self.decode(ids[: ends[0]] if ends else ids).strip()

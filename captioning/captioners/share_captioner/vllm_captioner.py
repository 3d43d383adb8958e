"""Share-Captioner with its language half on vLLM, as a captioner of the job. A static batch runs to its longest
caption. vLLM gives the place of a caption that has ended to the next picture, so that every step reads the weights for
as many captions as the memory has room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import count

import torch
from PIL import Image
from torch import Tensor

from captioning.captioners.base import Answer, CaptionFailure, Question, one_by_one_if_not_together, up_to
from captioning.captioners.share_captioner.captioner import RecipeModel
from captioning.captioners.share_captioner.files import WeightFiles
from captioning.captioners.share_captioner.language_folder import language_folder
from captioning.captioners.share_captioner.loading import read_blueprint
from captioning.captioners.share_captioner.vllm_engine import LanguageEngine, VllmEngine
from schemas import captioners

AT_ONCE, AT_ONCE_ON_CPU = 256, 32
"""Captions written at once where the recipe does not say: about as many as an 80 GB GPU has room for."""

PROMPTS_AT_ONCE = 16
"""Most pictures that go through the vision tower together: more are hardly faster, and take memory from captions."""

Prompt = tuple[Question, Tensor | CaptionFailure]
"""A question, and its prompt (L, hidden) on the CPU, or why it has none."""


class VllmCaptioner(RecipeModel):
    """Share-Captioner on vLLM. Each worker builds one. The vision tower, the resampler and the embeddings are ours:
    they turn pictures into prompts on a thread and a CUDA stream of their own, while the captions of earlier pictures
    are written on the same GPU."""

    def __init__(
        self,
        section: captioners.ShareCaptioner,
        device: str = "auto",
        start: Callable[..., LanguageEngine] = VllmEngine,
    ) -> None:
        """Load the model and start the engine by `start`. The first time on a machine the language half is written to
        its disk. Raises ValueError: vLLM, the weights or the device are not here, a caption may be longer than the
        model can read, or the device has no room."""
        super().__init__(section, device, language=False)
        place = self.model.device
        if place.type == "mps" or (place.index or 0) > 0:
            raise ValueError(
                f"caption.share_captioner.device={section.device}: vLLM takes the first GPU that it sees; set "
                "device=auto, and CUDA_VISIBLE_DEVICES to choose another"
            )
        at_once = section.batch_size or (AT_ONCE_ON_CPU if place.type == "cpu" else AT_ONCE)
        self.window = max(at_once + 1, at_once * 3 // 2)
        self._at_once, self._together = at_once, min(PROMPTS_AT_ONCE, max(1, (self.window - at_once) // 2))
        self._stream = torch.cuda.Stream(place) if place.type == "cuda" else None
        blank = self._prompts_of([Image.new("RGB", (8, 8))] * self._together)[0]  # leaves its memory reserved
        longest = self.model.model.dimensions.max_positions - len(blank)
        if section.max_new_tokens > longest:
            raise ValueError(
                f"caption.share_captioner.max_new_tokens={section.max_new_tokens}: at most {longest} with engine=vllm, "
                "for the model reads no more positions"
            )
        blueprint, _ = read_blueprint(WeightFiles(self.folder), self.overrides)
        self._engine = start(
            language_folder(blueprint, section.rotary, self.dtype),
            self.decoding,
            self.model.stops(self.decoding),
            dtype=self.model.dtype,
            device=place,
            at_once=at_once,
            prompt_length=len(blank),
            memory_share=section.gpu_memory_utilization,
        )
        self._numbers = count()

    def close(self) -> None:
        self._engine.close()

    def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
        """The answers, as of `Captioner.stream`: a caption's place goes to the next picture as soon as it has ended."""
        taken: deque[Question] = deque()
        """without a prompt yet"""
        written: dict[str, Question] = {}
        """in the engine"""
        coming: Future[list[Prompt]] | None = None
        num_in_flight, may_ask = 0, True
        with ThreadPoolExecutor(1, "prompts") as prompts:
            try:
                while True:
                    if may_ask:
                        room = min(self.window - num_in_flight, self._together)
                        new = list(up_to(room, questions))
                        taken.extend(new)
                        num_in_flight += len(new)
                        may_ask = len(new) == room  # else there is none now
                    is_due = len(taken) >= self._together or not may_ask or len(written) < self._at_once
                    if coming is None and taken and is_due:
                        batch = [taken.popleft() for _ in range(min(len(taken), self._together))]
                        coming = prompts.submit(self._prompts, batch)
                    if coming is not None and (coming.done() or not written):
                        for question, prompt in coming.result():
                            failure = self._add(question, prompt, written)
                            if failure is not None:
                                num_in_flight, may_ask = num_in_flight - 1, True
                                yield question.image_id, failure
                        coming = None
                        continue
                    if not written:
                        if not may_ask:
                            return
                        continue
                    for name, ids in self._engine.step():
                        question = written.pop(name)
                        num_in_flight, may_ask = num_in_flight - 1, True
                        yield question.image_id, ids if isinstance(ids, CaptionFailure) else self.model.answer(ids)
            finally:
                self._engine.drop(written)

    def _add(self, question: Question, prompt: Tensor | CaptionFailure, written: dict[str, Question]) -> Answer | None:
        """Give a prompt to the engine; the failure where there is none, or the engine refuses it."""
        if isinstance(prompt, CaptionFailure):
            return prompt
        name = str(next(self._numbers))
        try:
            self._engine.add(name, prompt, question.seed)
        except ValueError as error:
            return CaptionFailure(str(error))
        written[name] = question
        return None

    def _prompts(self, batch: Sequence[Question]) -> list[Prompt]:
        return list(zip(batch, one_by_one_if_not_together(self._made, batch), strict=True))

    def _made(self, batch: Sequence[Question]) -> Sequence[Tensor]:
        """The prompts of a batch; fewer go together after one that the memory has no room for."""
        try:
            return list(self._prompts_of([question.picture for question in batch]))
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                self._together = max(1, len(batch) // 2)
            raise

    def _prompts_of(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(B, L, hidden) on the CPU, from where vLLM takes them."""
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            return self.model.prompts(pictures).cpu()

"""The judge's recipe: the models to be compared, the questions, and the chat server that answers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from schemas.captioners import ChatSection
from schemas.files import is_file, place_of
from schemas.strict import Place, StrictModel, read_yaml

Aspect = Literal["alignment", "quality"]


class Judged(StrictModel):
    """A model whose pictures are judged."""

    evaluation: Place
    """Folder that `sigma evaluate` has written."""
    model: str | None = None
    """The model of that folder; null is the one of the same name."""


class JudgeRecipe(StrictModel):
    """Models of the same prompts, compared pair by pair."""

    recipe_kind = "a judge's recipe"

    out: Place
    """Folder of the verdicts and results. Models that join later are compared without asking anything again."""
    models: Annotated[dict[Annotated[str, Field(min_length=1, max_length=80)], Judged], Field(min_length=2)]
    """The models by the names that the results give them; each is compared with each."""
    aspects: Annotated[tuple[Aspect, ...], Field(min_length=1)] = get_args(Aspect)
    """The questions: `alignment` (which picture shows what the prompt says) and `quality` (which looks better)."""
    max_prompts: Annotated[int, Field(ge=1)] | None = 300
    """Most prompts, drawn by their ids, so that a higher number adds to those of a lower one; null takes all. The
    default is PixArt-Σ's."""
    judge: ChatSection = ChatSection()
    """The judge, whose model is shown two pictures at a time; people on a page need none."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.aspects)) < len(self.aspects):
            raise ValueError("aspects: one is named twice")
        places: dict[tuple[str, str], str] = {}
        for name, judged in self.models.items():
            other = places.setdefault((judged.evaluation, judged.model or name), name)
            if other != name:
                raise ValueError(f"models: {other} and {name} are the same model of {judged.evaluation}")
        return self

    def out_path(self) -> Path:
        """The folder; of an address in a store its `schemas.files.mount_point`."""
        return place_of(self.out)

    def refuse_other(self, path: Path) -> None:
        """Refuse a folder by the recipe in it. Raises ValueError: it is there and is no judge's."""
        if is_file(path) and "judge" not in read_yaml(path):
            raise ValueError(f"out: {self.out} holds something else already; name another folder")

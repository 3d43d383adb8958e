"""The data recipe: one way to name inputs, and which knobs change what a dataset holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from schemas.recipe import JOBS, DataRecipe, FolderSource
from schemas.strict import docstrings


def test_images_is_short_for_one_source() -> None:
    recipe = DataRecipe(images="~/photos", out="dataset")
    assert recipe.all_sources() == (FolderSource(path="~/photos"),)
    assert recipe.all_sources()[0].location() == str(Path.home() / "photos")
    assert recipe.all_sources()[0].label() == "photos"


@pytest.mark.parametrize("values", [{}, {"images": "a", "sources": [{"path": "b"}]}, {"images": ""}])
def test_exactly_one_way_to_name_inputs(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give either images: FOLDER or a list of sources"):
        DataRecipe.from_mapping({"out": "dataset"} | values)


def test_a_folder_is_named_once() -> None:
    with pytest.raises(ValueError, match="the same folder is named twice"):
        DataRecipe.from_mapping({"out": "d", "sources": [{"path": "a"}, {"path": "./a", "name": "again"}]})


def test_every_job_has_a_section() -> None:
    assert set(JOBS) <= set(DataRecipe.model_fields)


def test_every_knob_has_a_docstring() -> None:
    sections = [DataRecipe.model_fields[job].annotation for job in (*JOBS, "run")]
    for section in sections:
        assert section is not None
        assert section.__doc__
        for name, field in section.model_fields.items():
            if isinstance(field.default, BaseModel):
                sections.append(field.annotation)
            else:
                assert docstrings(section).get(name), f"{section.__name__}.{name}"


def test_a_sample_depends_only_on_the_knobs_that_shape_it() -> None:
    def name(**sections: object) -> str:
        return DataRecipe.from_mapping({"images": "a", "out": "b"} | sections).sample_fingerprint()

    assert name(out="elsewhere", run={"workers": 7}, select={"max_aspect": 2}, shard={"megabytes": 1}) == name()
    assert name(mix={"salt": "again"}) != name()
    assert name(clean={"min_words": 3}) != name()
    assert name(shard={"resize_longest_px": 64}) != name()

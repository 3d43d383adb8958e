"""Sources are told apart by kind, documented, and never hold a credential."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest

from models.weights import LLAVA, find_weights
from schemas.files import place_of
from schemas.locations import absolute, public_url
from schemas.recipe import DataRecipe
from schemas.sources import AnySource, FolderSource, WebDatasetSource
from schemas.strict import StrictModel, docstrings


def sources(*values: dict[str, Any]) -> tuple[AnySource, ...]:
    return DataRecipe.from_mapping({"out": "d", "sources": values}).all_sources()


def refusal(value: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as refused:
        sources(value)
    return str(refused.value)


def test_a_source_without_a_kind_is_a_folder() -> None:
    assert sources({"path": "~/a"}) == (FolderSource(path="~/a"),)
    assert sources({"path": "s3://b/c/"})[0].location() == "s3://b/c"
    assert sources({"path": "s3://b/c/"})[0].label() == "c"


def test_one_tar_or_many() -> None:
    one, many = sources({"kind": "webdataset", "urls": "/t/{0..3}.tar"}, {"kind": "webdataset", "urls": ["/a", "/b"]})
    assert isinstance(one, WebDatasetSource)
    assert (one.urls, one.label()) == (("/t/{0..3}.tar",), "{0..3}")
    assert many.location() == "/a /b"


def test_refusals_name_the_key_as_it_is_written() -> None:
    assert refusal({"kind": "webdataset", "urls": "x", "captions": {"tx": 1}}) == (
        "recipe: unknown key 'sources.0.captions.tx'; did you mean 'txt'?"
    )
    assert refusal({"kind": "urls", "path": "x", "img2dataset": {"tiemout": 1}}) == (
        "recipe: unknown key 'sources.0.img2dataset.tiemout'; did you mean 'timeout'?"
    )
    assert refusal({"kind": "tars", "path": "x"}) == (
        "recipe: sources.0: kind: one of folder, webdataset, img2dataset, table, hf_dataset, urls"
    )
    assert refusal({"kind": "table", "path": "x", "columns": {"path": "a", "bytes": "b"}}) == (
        "recipe: sources.0.columns: name the column of the pictures: either path or bytes"
    )
    assert refusal({"kind": "webdataset"}) == "recipe: sources.0.urls is required"


@pytest.mark.parametrize("path", ["https://me:hunter2@x/y", "https://x/y?X-Amz-Signature=hunter2&a=1"])
def test_a_credential_is_refused_and_not_repeated(path: str) -> None:
    for value in ({"path": path}, {"kind": "webdataset", "urls": [path]}, {"kind": "urls", "path": "a", "into": path}):
        message = refusal(value)
        assert "credentials never stand in a recipe" in message
        assert "hunter2" not in message


def test_the_resolved_recipe_reads_back() -> None:
    made = DataRecipe.from_mapping({"out": "d", "sources": [{"kind": "urls", "path": "z"}, {"path": "a"}]})
    assert DataRecipe.from_mapping(made.resolved()) == made


def test_every_knob_has_a_docstring() -> None:
    def check(model: type[StrictModel]) -> None:
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, StrictModel):
                assert inner.__doc__
                check(inner)
            elif name != "kind":
                assert docstrings(model).get(name), f"{model.__name__}.{name}"

    for model in typing.get_args(AnySource):
        check(model)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://u:p@h/x?a=1&sig=3&w=2#f", "https://h/x?a=1&w=2#f"),
        ("https://h/x?design=1&monkey=2", "https://h/x?design=1&monkey=2"),
        ("https://h/x?Expires=1&Signature=2&Key-Pair-Id=3", "https://h/x?Expires=1&Key-Pair-Id=3"),
        ("https://h/x?access_token=1", "https://h/x"),
        ("https://u:p@[h/x?token=1", "https://[h/x"),
        ("/local/a?token=1", "/local/a?token=1"),
        ("S3://Photos/x?a", "S3://Photos/x?a"),
        ("s3:///x", "s3:///x"),
    ],
)
def test_public_urls(url: str, public: str) -> None:
    assert public_url(url) == public


def test_absolute() -> None:
    assert absolute("~/a") == str(Path.home() / "a")
    assert absolute("a") == str(Path.cwd() / "a")
    assert absolute("hf://datasets/a/") == "hf://datasets/a"
    for made in (absolute, place_of, lambda text: find_weights(text, LLAVA, "caption.vlm.model")):
        with pytest.raises(ValueError, match="~nobody-of-this-name/a: there is no such home directory"):
            made("~nobody-of-this-name/a")

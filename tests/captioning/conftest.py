"""Tables as the jobs before captioning leave them, made of real photographs."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from PIL import Image

from schemas import tables

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg", "camera.png", "moon.png")


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    """The photographs of the scikit-image wheel by name, as small RGB pictures."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    pictures = {}
    for name in PHOTOS:
        with Image.open(folder / name) as image:
            picture = image.convert("RGB")
        picture.thumbnail((320, 320))
        pictures[name.split(".")[0]] = picture
    return pictures


@pytest.fixture(scope="session")
def jpeg() -> Callable[[Image.Image], bytes]:
    def encode(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def image_ids() -> Callable[[int], list[str]]:
    return lambda count: [f"{number:032x}" for number in range(count)]


def from_columns(schema: pa.Schema, columns: dict[str, Sequence[object]]) -> pa.Table:
    """A table of the contract; columns that are not given are null."""
    num_rows = len(next(iter(columns.values())))
    values = {field.name: pa.array(columns.get(field.name, [None] * num_rows), field.type) for field in schema}
    return pa.table(values, schema=schema)


@pytest.fixture(scope="session")
def part() -> Callable[..., pa.Table]:
    """part("images", image_id=[...], ...) is that table with row_id 0, 1, 2, ..."""

    def make(table: str, **columns: Sequence[object]) -> pa.Table:
        num_rows = len(next(iter(columns.values())))
        defaults: dict[str, Sequence[object]] = {"row_id": range(num_rows)}
        if table == "selection":
            defaults["subsets"] = [[] for _ in range(num_rows)]
        if table == "raw_captions":
            defaults["removed"] = [[] for _ in range(num_rows)]
        if table == "images":
            defaults |= {name: ["photos"] * num_rows for name in ("source", "source_name", "member")}
        if table == "captions":
            defaults["captioner"] = ["attributes"] * num_rows
        return from_columns(tables.SCHEMAS[table], defaults | columns)

    return make


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of reference data that lies beside the repository; tests that need it skip without it."""
    default = Path(__file__).parents[3] / "shared" / "fixtures"
    folder = Path(os.environ.get("SIGMA_FIXTURES", default))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set SIGMA_FIXTURES to where it is")
    return folder

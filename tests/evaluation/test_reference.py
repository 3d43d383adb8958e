"""References: what they may be, and files of moments that are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.reference import _rows_of, read_moments
from schemas.evaluation import Reference
from tests.training.conftest import photo


def rows(place: Path, **knobs: Any) -> list[dict[str, Any]]:
    return list(_rows_of(place, Reference(pictures=str(place), **knobs)))


def test_a_folder_gives_its_pictures_by_their_paths_with_folders_as_categories(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", "0.png", "evaluation/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo(1, 8, 8))
    assert [(row["prompt_id"], row["category"]) for row in rows(tmp_path)] == [("0", None), ("a/1", "a"), ("b/2", "b")]


def test_the_folder_of_mjhq_gives_its_pictures_by_its_list(tmp_path: Path) -> None:
    (tmp_path / "imgs" / "food").mkdir(parents=True)
    (tmp_path / "imgs" / "food" / "k1.jpg").write_bytes(b"")
    entries = {"k1": {"prompt": "a pie", "category": "food"}, "k2": {"prompt": "a cake", "category": "food"}}
    (tmp_path / "meta_data.json").write_text(json.dumps(entries))
    first, second = rows(tmp_path)
    assert (first["prompt_id"], first["category"], Path(first["file"]).name) == ("k1", "food", "k1.jpg")
    assert (second["reason"], second["detail"]) == ("not_generated", "no k2.*")


def test_a_dataset_gives_the_samples_that_meet_a_condition(trained: Path) -> None:
    found = rows(trained / "dataset", where="width > 90")
    assert 0 < len(found) < 7 and all(row["size"] > 0 and row["file"].endswith(".tar") for row in found)
    with pytest.raises(ValueError, match="is of a dataset"):
        rows(trained, where="width > 90")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one array", "more than memory", "damaged"])
def test_a_file_of_other_arrays_is_refused(kind: str, tmp_path: Path) -> None:
    path, held = tmp_path / "m.npz", io.BytesIO()
    if kind == "one array":
        np.save(held, np.zeros(2048))
    elif kind == "more than memory":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**55,)})
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr("mu.npy", header.getvalue())
    else:
        np.savez_compressed(held, mu=np.random.default_rng(0).normal(size=2048), sigma=np.eye(2048))
    data = bytearray(held.getvalue())
    if kind == "damaged":
        data[1000:1500] = bytes(500)
    path.write_bytes(data)
    refused(path)


@pytest.mark.slow
def test_moments_of_another_program_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    mu, sigma = read_moments(tmp_path / "m.npz")
    assert mu.shape == (2048,) and sigma.shape == (2048, 2048)


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        read_moments(path)
    assert str(error.value).startswith(f"{path}: is no file of moments (")
    return str(error.value)


@pytest.mark.slow
def test_moments_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, mu=np.array([{}], dtype=object), sigma=np.eye(2))
    assert "allow_pickle" in refused(path) or "Object arrays" in refused(path)
    np.savez(path, mu=np.zeros(768), sigma=np.eye(768))
    assert "2,048 features" in refused(path)
    np.savez(path, mu=np.zeros(2048), sigma=np.triu(np.ones((2048, 2048))))
    assert "not symmetric" in refused(path)
    negative = np.eye(2048)
    negative[:2, :2] = [[1, 3], [3, 1]]
    np.savez(path, mu=np.zeros(2048), sigma=negative)
    assert "eigenvalue" in refused(path)
    np.savez(path, mu=np.full(2048, np.nan), sigma=np.eye(2048))
    assert "NaN" in refused(path)
    np.savez(path, mean=np.zeros(2048))
    assert "mu" in refused(path)
    path.write_bytes(pickle.dumps([1]))
    refused(path)
    refused(tmp_path / "none.npz")

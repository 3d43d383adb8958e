"""What others read our shards with must read them as they are."""

from __future__ import annotations

import io
import json
import os
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from curation.shards.dataset_card import metadata_types
from engine.dataset import Dataset
from schemas.shard import SampleMetadata
from schemas.shard_index import read_index
from tests.building import build, picture, recipe, rows

pytestmark = pytest.mark.slow

NAMES = (
    "plain.jpg",
    "a.name.with.dots.jpg",
    "with spaces  twice.jpg",
    "Übung für 照片.jpg",
    'it\'s "quoted" & <b>bold</b>.jpg',
    "😀 smile.jpg",
    "semi;colon, comma.jpg",
    "-rf.jpg",
    "per%cent %41.jpg",
    "new\nline.jpg",
    "deep/er.folder/x.jpg",
    "UPPER.JPG",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """JPEG files with awkward names in three buckets; some have url, licence and caption, some have none."""
    folder = tmp_path_factory.mktemp("readers") / "photos"
    sizes = ((96, 64), (64, 96), (80, 80))
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, *sizes[number % 3]).save(path, "JPEG")
        words = {"caption": f"Words of “{number}” – {name!r}", "url": f"https://example.org/{number}", "license": "CC0"}
        path.with_suffix(".json").write_text(json.dumps(words if number % 4 else {}), encoding="utf-8")
    made = recipe(folder, folder.parent / "ds", shard={"max_samples": 3}, mix={"synthetic_share": 0.5})
    return build(made)[0]


def shards(dataset: Dataset) -> list[str]:
    return sorted(str(path) for path in dataset.shards.glob("*/*.tar"))


def captions(dataset: Dataset) -> dict[str, str]:
    return {row["image_id"]: row["caption"] for row in rows(dataset, "mix")}


def sources(dataset: Dataset) -> dict[str, str]:
    return {row["image_id"]: f"photos/{row['member']}" for row in rows(dataset, "images")}


def test_webdataset_reads_every_sample(dataset: Dataset) -> None:
    found = list(webdataset.WebDataset(shards(dataset), shardshuffle=False).decode("pil"))
    assert {sample["__key__"] for sample in found} == set(captions(dataset))
    assert len(found) == len(NAMES)
    for sample in found:
        assert sample["txt"] == captions(dataset)[sample["__key__"]]
        assert sample["json"]["image_id"] == sample["__key__"]
        assert sample["jpg"].mode == "RGB"
        assert sample["jpg"].size == (sample["json"]["width"], sample["json"]["height"])


def test_webdataset_gives_tuples_and_batches_of_one_shape(dataset: Dataset) -> None:
    for path in shards(dataset):
        reader = webdataset.WebDataset(path, shardshuffle=False).decode("rgb").to_tuple("jpg", "txt").batched(8)
        ((images, texts),) = list(reader)
        assert images.shape[0] == len(texts) <= 3  # numpy stacks one shape only
        assert images.ndim == 4


def test_wids_finds_samples_by_number(dataset: Dataset, tmp_path: Path) -> None:
    wids = pytest.importorskip("wids")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = wids.ShardListDataset(str(dataset.shards / "wids.json"), cache_dir=str(tmp_path))
        keys = [reader[number]["__key__"] for number in range(len(reader))]
    assert keys == read_index(dataset.shards)["key"].to_pylist()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hugging Face `datasets` without a network, its cache in the test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load_shards(dataset: Dataset, **more: Any) -> Any:
        return datasets.load_dataset(
            "webdataset", data_files=shards(dataset), split="train", cache_dir=str(tmp_path / "cache"), **more
        )

    yield load_shards


def features(*images: str) -> Any:
    import datasets

    text, number, whole = datasets.Value("string"), datasets.Value("float64"), datasets.Value("int64")
    metadata = {
        "image_id": text,
        "caption_raw": text,
        "caption_raw_reason": text,
        "caption_raw_from": text,
        "caption_original": text,
        "captions_synthetic": [{"captioner": text, "caption": text}],
        "caption_source": text,
        "caption_coin": number,
        "caption_fallback": text,
        "width": whole,
        "height": whole,
        "aspect": number,
        "bucket": text,
        "aesthetic": number,
        "aesthetic_scorer": text,
        "phash": text,
        "subsets": [text],
        "source": text,
        "url": text,
        "license": text,
        "sha256": text,
        "resized": datasets.Value("bool"),
        "image_sha256": text,
        "recipe": text,
    }
    members = {"json": metadata, "txt": text, **{image: datasets.Image() for image in images}}
    return datasets.Features({"__key__": text, "__url__": text, **members})


def test_hugging_face_datasets_reads_every_sample(dataset: Dataset, load: Any) -> None:
    found = load(dataset, features=features("jpg"))
    assert {"__key__", "jpg", "txt", "json"} <= set(found.column_names)
    assert {sample["__key__"]: sample["txt"] for sample in found} == captions(dataset)
    assert {sample["__key__"]: sample["json"]["source"] for sample in found} == sources(dataset)
    for sample in found:
        assert sample["jpg"].size == (sample["json"]["width"], sample["json"]["height"])
    assert {sample["json"]["license"] for sample in found} == {None, "CC0"}


def test_hugging_face_datasets_reads_alike_samples_without_being_told(tmp_path: Path, load: Any) -> None:
    """Where every sample has all its fields, the features need not be named."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        picture(number).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"caption {number}")
    found = load(build(recipe(folder, tmp_path / "ds", shard={"max_samples": 4}))[0])
    assert {"__key__", "jpg", "txt", "json"} <= set(found.column_names)
    assert len(found) == 7
    assert found[0]["jpg"].size == (96, 64)


@pytest.fixture(scope="module")
def of_two_formats(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("formats") / "photos"
    folder.mkdir()
    for number in range(6):
        picture(number).save(folder / f"{number}.{('jpg', 'png')[number % 2]}")
        (folder / f"{number}.txt").write_text(f"caption {number}")
    return build(recipe(folder, folder.parent / "ds", shard={"max_samples": 4}))[0]


def test_hugging_face_datasets_reads_two_formats_with_a_column_each(of_two_formats: Dataset, load: Any) -> None:
    found = load(of_two_formats, features=features("jpg", "png"))
    assert {sample["__key__"]: sample["txt"] for sample in found} == captions(of_two_formats)
    formats = {row["image_id"]: row["image_ext"] for row in rows(of_two_formats, "samples")}
    assert {s["__key__"]: "jpg" if s["jpg"] else "png" for s in found} == formats
    assert all((sample["jpg"] is None) != (sample["png"] is None) for sample in found)


def load_folder(dataset: Dataset, cache: Path) -> Any:
    """As a user loads it: the folder, and nothing said about its columns."""
    import datasets

    return datasets.load_dataset(str(dataset.shards), split="train", cache_dir=str(cache))


def test_hugging_face_datasets_reads_a_folder_of_two_formats(
    of_two_formats: Dataset, load: Any, tmp_path: Path
) -> None:
    found = load_folder(of_two_formats, tmp_path)
    assert len(found) == 6
    assert all((sample["jpg"] is None) != (sample["png"] is None) for sample in found)


def test_hugging_face_datasets_reads_a_folder_with_missing_fields(tmp_path: Path, load: Any) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        picture(number).save(folder / f"{number}.jpg")
    built = build(recipe(folder, tmp_path / "ds", part_rows=20))[0]
    last = max(rows(built, "images"), key=lambda row: row["image_id"])["member"]
    (folder / last).with_suffix(".json").write_text(json.dumps({"caption": "words", "license": "CC0"}))
    found = load_folder(build(recipe(folder, tmp_path / "again"))[0], tmp_path / "cache")
    assert sorted(str(sample["json"]["license"]) for sample in found) == ["CC0", *["None"] * 11]


def test_the_card_knows_every_key_of_the_json_member() -> None:
    assert set(metadata_types()) == set(SampleMetadata.__annotations__)


def test_tarfile_reads_every_sample(dataset: Dataset) -> None:
    found: dict[str, dict[str, bytes]] = {}
    for path in shards(dataset):
        with tarfile.open(path, "r|") as tar:  # as a stream, without seeking
            for member in tar:
                key, _, extension = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                found.setdefault(key, {})[extension] = data.read()
    assert {key: sample["txt"].decode() for key, sample in found.items()} == captions(dataset)
    assert all(set(sample) == {"jpg", "txt", "json"} for sample in found.values())


def test_a_sample_is_read_by_its_offsets(dataset: Dataset) -> None:
    for row in read_index(dataset.shards).to_pylist():
        tar = os.open(dataset.shards / row["shard"], os.O_RDONLY)
        try:
            image = Image.open(io.BytesIO(os.pread(tar, row["image_size"], row["image_offset"])))
            text = os.pread(tar, row["txt_size"], row["txt_offset"]).decode()
            metadata = json.loads(os.pread(tar, row["json_size"], row["json_offset"]))
        finally:
            os.close(tar)
        assert image.size == (row["width"], row["height"])
        assert text == captions(dataset)[row["image_id"]]
        assert metadata["image_id"] == row["key"] == row["image_id"]


def test_names_of_files_survive(dataset: Dataset) -> None:
    found = set()
    for sample in webdataset.WebDataset(shards(dataset), shardshuffle=False).decode():
        found.add(sample["json"]["source"])
    assert found == {f"photos/{name}" for name in NAMES}

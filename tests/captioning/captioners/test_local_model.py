"""A model is found where it lies, and named so that another one is told from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioning.captioners.local_model import downloaded_commit, find_model, folder_digest
from models.weights import LLAVA

COMMIT = "b234b804b114d9e37bb655e11cbbb5f5e971b7a9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "llava"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(os.urandom(3 << 20))
    return made


def test_a_folder_is_named_by_its_files(folder: Path) -> None:
    found = find_model(str(folder), LLAVA, "caption.vlm.weights")
    assert found.folder == folder
    assert found.revision == folder_digest(folder)
    assert found.name == f"llava@{found.revision.removeprefix('folder-')[:8]}"


@pytest.mark.parametrize("place", [0, 1, -1], ids=["first byte", "second byte", "last byte"])
def test_other_weights_are_another_revision(folder: Path, place: int) -> None:
    before = folder_digest(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[place] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert folder_digest(folder) != before


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model-00001-of-00002.bin"])
def test_weights_that_differ_in_the_middle_are_another_revision(folder: Path, file: str) -> None:
    content = bytearray(8 << 20)
    (folder / file).write_bytes(content)
    before = find_model(str(folder), LLAVA, "caption.vlm.weights")
    content[3 << 20 : 5 << 20] = b"\1" * (2 << 20)  # both ends stay as they were
    (folder / file).write_bytes(content)
    after = find_model(str(folder), LLAVA, "caption.vlm.weights")
    assert after.revision != before.revision and after.name != before.name
    assert len(after.revision) == len("folder-") + 16


def test_another_tokenizer_is_another_revision_and_a_hidden_file_is_none(folder: Path) -> None:
    before = folder_digest(folder)
    (folder / ".DS_Store").write_text("of the file manager")
    assert folder_digest(folder) == before
    (folder / "tokenizer_config.json").write_text("{}")
    assert folder_digest(folder) != before


def test_a_download_knows_its_commit(folder: Path) -> None:
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\netag\n1.0\n")
    found = find_model(str(folder), LLAVA, "caption.vlm.weights")
    assert (found.name, found.revision) == (f"llava@{COMMIT[:8]}", COMMIT)
    os.utime(folder / "config.json", (note.stat().st_mtime + 60,) * 2)
    assert downloaded_commit(folder) is None, "it was changed since"


def test_the_hub_cache_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    snapshot = cache / "models--org--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = cache / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for given in ("org/tiny", f"org/tiny@{COMMIT}"):
        found = find_model(given, LLAVA, "caption.vlm.weights")
        assert (found.folder, found.name, found.revision) == (snapshot, f"org/tiny@{COMMIT[:8]}", COMMIT)
    with pytest.raises(ValueError, match="weights missing: org/other"):
        find_model("org/other", LLAVA, "caption.vlm.weights")


@pytest.mark.parametrize("given", ["nowhere", "./no/such/folder", "a b/c"])
def test_a_name_that_is_no_folder_and_no_id_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"weights missing: llava-hf/llava-1\.5-7b-hf .*14 GB"):
        find_model(given, LLAVA, "caption.vlm.weights")

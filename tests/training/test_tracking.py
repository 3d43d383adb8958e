"""Weights & Biases: offline runs hold what metrics.jsonl holds, and what is missing is said in one line."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from collections.abc import Iterator

import pytest

from schemas.training import TrainingRecipe
from training.metrics import read_metrics
from training.tracking import ID_FILE, require_wandb, wandb_run
from training.train import train

needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="the package wandb is missing")


def recipe_with(values, mode, **knobs) -> TrainingRecipe:
    return TrainingRecipe.from_mapping(values | {"wandb": {"mode": mode}} | knobs)


def records(path) -> Iterator[bytes]:
    """The records of a run's file: chunks in blocks of 32 KiB, as LevelDB's log has them, behind 7 bytes."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no chunk begins so near to the end of a block
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield record
            record = b""


def logged(path) -> dict[int, dict[str, float]]:
    """The numbers of a run's file by step."""
    from wandb.proto.wandb_internal_pb2 import Record

    lines = {}
    for data in records(path):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            lines[items["_step"]] = {name: value for name, value in items.items() if not name.startswith("_")}
    return lines


@needs_wandb
@pytest.mark.slow  # a process of wandb per run
def test_an_offline_run_holds_the_metrics_and_goes_on_after_a_stop(recipe_values, monkeypatch):
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("offline means offline"))
    recipe = recipe_with(recipe_values, "offline")
    stage = recipe.stages[0]
    folder = recipe.stage_folder(stage)
    shorter = stage.model_copy(update={"steps": 4})
    train(recipe.model_copy(update={"stages": (shorter,)}))
    name = (folder / ID_FILE).read_text()
    train(recipe, only_stage=stage.name)
    runs = sorted(folder.glob(f"wandb/offline-run-*/run-{name}.wandb"))
    assert len(runs) == 2
    deadline = time.monotonic() + 30
    while len(logged(runs[1])) < 2 and time.monotonic() < deadline:  # the process of wandb may still write
        time.sleep(0.05)
    lines = [{"step": step} | values for run in runs for step, values in logged(run).items()]
    assert lines == read_metrics(folder) and [line["step"] for line in lines] == [2, 4, 6, 8]


@needs_wandb
@pytest.mark.slow
def test_online_without_a_login_is_one_line(recipe_values, monkeypatch, tmp_path):
    for variable in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "nobody"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    recipe = recipe_with(recipe_values, "online")
    with pytest.raises(ValueError, match=r"wandb: .*; run wandb login, or set wandb\.mode=offline"):
        wandb_run(recipe, recipe.stages[0])


def test_a_missing_package_is_named_before_anything_is_written(recipe_values, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = recipe_with(recipe_values, "offline")
    with pytest.raises(ValueError, match=r"wandb\.mode=offline needs a package: pip install wandb"):
        train(recipe)
    assert not recipe.out_folder.exists()
    require_wandb(recipe_with(recipe_values, False))


def test_without_the_knob_nothing_of_it_is_there(recipe_values):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    assert wandb_run(recipe, recipe.stages[0]) is None and not recipe.out_folder.exists()

"""Tars that others wrote are trained on where they are, with features and without."""

from __future__ import annotations

import io
import tarfile

import pytest
from typer.testing import CliRunner

from commands.front_door import app
from schemas.training import Features, TrainingRecipe
from tests.training.conftest import photo, upload
from tests.training.encoding import encode
from training.metrics import read_metrics
from training.train import train


@pytest.mark.slow
def test_the_command_indexes_and_the_trainer_encodes_and_trains(tmp_path, recipe_values, bucket):
    pictures = [photo(number, 64, 64) for number in range(6)]
    members = [
        (f"{n}.{kind}", data) for n, one in enumerate(pictures) for kind, data in (("png", one), ("txt", b"red"))
    ]
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    result = CliRunner().invoke(app, ["index", str(tmp_path / "tars")])
    assert result.exit_code == 0 and f"dataset={tmp_path / 'tars'}" in result.output
    assert "index: 6 samples in 1 tar," in result.output and "1.0: 6" in result.output
    recipe = TrainingRecipe.from_mapping(
        recipe_values | {"dataset": str(tmp_path / "tars"), "features": {"dtype": "fp32"}, "out": str(tmp_path / "one")}
    )
    train(recipe, only_stage="small")
    tossing = recipe.model_copy(update={"data": recipe.data.model_copy(update={"captions": "toss"})})
    with pytest.raises(ValueError, match=r"data\.captions: toss .* have one for each picture"):
        train(tossing)
    assert [done.record.num_damaged for done in encode(recipe)] == [0, 0, 0]
    again = recipe.model_copy(update={"out": str(tmp_path / "two")})
    train(again, only_stage="small")
    losses = [[line["loss"] for line in read_metrics(run.stage_folder(run.stages[0]))] for run in (recipe, again)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    there = upload(bucket, tmp_path / "tars", "tars")
    remote = again.model_copy(
        update={"dataset": there, "out": str(tmp_path / "three"), "features": Features(use="off")}
    )
    train(remote, only_stage="small")
    assert [line["loss"] for line in read_metrics(remote.stage_folder(remote.stages[0]))] == losses[0]
    assert [str(path.relative_to(remote.dataset_folder)) for path in remote.dataset_folder.rglob("*.tar")] == ["0.tar"]
    result = CliRunner().invoke(app, ["index", str(tmp_path / "tars")])
    assert "index: 6 samples in 1 tar," in result.output, "the features next to the tars are none of them"

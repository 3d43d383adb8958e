"""Encoding once: what is stored is what the encoders give, whole or absent, whoever computed it and however often."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
import webdataset

from engine.runner import PartFailed
from schemas.features import damaged_files, read_record
from schemas.files import mount_point
from schemas.shard_index import read_index
from schemas.training import TrainingRecipe
from tests.dying import Died, dying_at
from tests.memory_store import URL, Memory
from tests.processes import Python
from tests.training.encoding import content, encode
from training.data.reader import DamagedSample, ShardReader
from training.data.stored import StoredArrays
from training.data.transform import to_unit_range
from training.encoders.base import draw_latents
from training.encoders.make import Encoders
from training.features import latents_set, text_set
from training.shard_encoders import encoded_texts

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, time, torch
torch.set_num_threads(1)
from schemas.training import TrainingRecipe
from tests.training.encoding import encode
from training.encoders.offline import BlockDCT
whole = BlockDCT.moments
def slowly(self, pixels):
    time.sleep(0.05)  # so that there is a middle to be killed in
    return whole(self, pixels)
BlockDCT.moments = slowly
encode(TrainingRecipe.load(sys.argv[1]))
"""


@pytest.fixture
def recipe(recipe_values, tmp_path) -> TrainingRecipe:
    features = {"folder": str(tmp_path / "features"), "dtype": "fp32", "runner": "local"}
    return TrainingRecipe.from_mapping(recipe_values | {"features": features})


@pytest.fixture
def real_recipe(recipe_values, real_components, tmp_path) -> TrainingRecipe:
    values = recipe_values | {
        "latents": {"codec": "sdxl", "weights": str(real_components)},
        "text": {"encoder": "t5", "channels": 32, "weights": str(real_components), "precision": "fp32"},
        "features": {"folder": str(tmp_path / "features"), "dtype": "fp32"},
    }
    return TrainingRecipe.from_mapping(values)


def tossing(recipe: TrainingRecipe) -> TrainingRecipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"captions": "toss"})})


def test_encode_stores_the_numbers_of_the_encoders(real_recipe):
    real_recipe = tossing(real_recipe)
    encode(real_recipe)
    stage, encoders = real_recipe.stages[0], Encoders(real_recipe)
    rows = read_index(real_recipe.dataset_folder / "shards")
    reader = ShardReader(real_recipe.dataset_folder / "shards", rows)
    latents, text = (StoredArrays(s.folder) for s in (latents_set(real_recipe, stage), text_set(real_recipe)))
    num_synthetic = 0
    for row, entry in enumerate(rows.to_pylist()):
        moments = latents.read(entry["shard"], entry["key"], "latents")
        shape = tuple(8 * side for side in moments.shape[-2:])
        sample = reader.read(row, shape)
        pixels = to_unit_range(torch.from_numpy(sample.pixels)[None])
        assert moments.shape[:2] == (2, 4)
        for seeds in (None, [7]):
            drawn = draw_latents(moments[None], seeds, encoders.latent_scale)
            assert torch.equal(drawn, encoders.codec.encode(pixels, seeds))
        for array in ("raw", "synthetic", "mixed"):
            caption, stored = getattr(sample, array), text.read(entry["shard"], entry["key"], array)
            assert (stored is None) == (caption is None)
            assert stored is None or torch.equal(stored, encoders.text.encode(caption))
        num_synthetic += sample.synthetic is not None
    assert num_synthetic == 6  # both captions of six pictures are there
    null = np.load(text_set(real_recipe).folder / "null.npy")
    assert torch.equal(torch.from_numpy(null), encoders.text.null())


def test_bf16_keeps_what_an_encoder_gives_in_bf16_and_rounds_the_rest(real_recipe):
    values = real_recipe.resolved()
    values["features"]["dtype"] = values["text"]["precision"] = "bf16"
    rounding = TrainingRecipe.from_mapping(values)
    latents, text = latents_set(rounding, rounding.stages[0]), text_set(rounding)
    assert (latents.rounded, text.rounded) == ("bf16", None)
    encode(rounding, stage="small")
    entry = read_index(rounding.dataset_folder / "shards").to_pylist()[0]
    stored = StoredArrays(text.folder).read(entry["shard"], entry["key"], "mixed")
    reader = ShardReader(rounding.dataset_folder / "shards", read_index(rounding.dataset_folder / "shards"))
    assert stored.dtype == torch.bfloat16
    assert torch.equal(stored.float(), Encoders(rounding).text.encode(reader.captions(0).mixed))


def test_captions_that_go_through_together_give_the_same(real_recipe):
    encoder = Encoders(real_recipe).text
    captions = ["A red boat", "on the lake", "A red lake", "seen from hill 3 at DAWN", "A red boat"]
    together = [vectors for _, vectors in encoded_texts(encoder, captions, 4, 2)]
    for caption, batched in zip(captions, together, strict=True):
        assert torch.allclose(batched, encoder.encode(caption), atol=1e-5)
    alone = [vectors for _, vectors in encoded_texts(encoder, captions, None, 2)]
    assert all(torch.equal(one, encoder.encode(caption)) for one, caption in zip(alone, captions, strict=True))


def test_a_second_run_does_nothing_and_stages_of_one_shape_share_a_set(recipe):
    first = encode(recipe)
    assert [done.name for done in first] == ["text-hashed", "latents-dct-32px-by16", "latents-dct-64px-by32"]
    assert all(done.num_computed == done.num_shards == 3 for done in first)
    before = content(recipe.features_folder)
    assert [done.num_computed for done in encode(recipe)] == [0, 0, 0]
    assert content(recipe.features_folder) == before
    assert [done.num_computed for done in encode(recipe, redo=True)] == [3, 3, 3]
    assert content(recipe.features_folder) == before


def test_killed_in_the_middle_and_run_again_the_bytes_are_equal(recipe, tmp_path):
    encode(recipe)
    whole = content(recipe.features_folder)
    values = recipe.resolved()
    values["features"]["folder"] = str(tmp_path / "killed")
    killed = TrainingRecipe.from_mapping(values)
    (tmp_path / "recipe.yaml").write_text(killed.to_yaml())
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = Python(tmp_path / "program.py", tmp_path / "recipe.yaml", env=environment)
    folder, deadline = tmp_path / "killed" / "latents-dct-32px-by16", time.monotonic() + 60
    while not list(folder.glob("*/[0-9]*.tar")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert read_record(folder).index is None, "it was killed with shards still to do"
    done = encode(killed)
    assert 0 < done[1].num_computed < 3
    assert content(tmp_path / "killed") == whole


@pytest.mark.parametrize("redo", [False, True])
def test_killed_before_any_change_of_the_disk_and_run_again_the_bytes_are_equal(recipe, tmp_path, redo):
    encode(recipe, kind="text")
    whole, change, died = content(recipe.features_folder), 1, True
    while died:
        if not redo:
            shutil.rmtree(recipe.features_folder)
        died = False
        try:
            with dying_at(change):
                encode(recipe, kind="text", redo=redo)
        except (Died, PartFailed):  # a part names the shard it died at
            died = True
        encode(recipe, kind="text")
        assert content(recipe.features_folder) == whole, f"stopped before change {change}"
        change += 1
    assert change > 9


def test_ray_writes_what_one_process_writes(recipe, tmp_path, monkeypatch, on_ray):
    from engine.ray_cluster import connect
    from engine.ray_runner import RayRunner

    encode(recipe)
    ran = []
    run = RayRunner.run
    monkeypatch.setattr(RayRunner, "run", lambda self, *arguments: ran.append(run(self, *arguments)) or ran[-1])
    values = recipe.resolved()
    values["features"] |= {"folder": str(tmp_path / "ray"), "workers": 2, "retries": 0}
    connect()
    try:
        encode(TrainingRecipe.from_mapping(values), runner="ray")
        assert [len(parts) for parts in ran] == [3, 3, 3]
        values["features"] |= {"folder": str(tmp_path / "none"), "gpus_per_worker": 999}
        with pytest.raises(ValueError, match=r"encode text-hashed: gpus_per_worker=999: the largest node .* \d+ GPU"):
            encode(TrainingRecipe.from_mapping(values), runner="ray")
    finally:
        ray.shutdown()
    assert content(tmp_path / "ray") == content(recipe.features_folder)


def test_without_a_toss_only_the_chosen_caption_is_encoded(recipe):
    text = encode(recipe, kind="text")[0]
    samples = list(
        webdataset.WebDataset([str(path) for path in sorted(text.folder.glob("*/*.tar"))], shardshuffle=False)
    )
    arrays = [{name for name in sample if not name.startswith("__")} for sample in samples]
    assert arrays == [{"mixed.npy"}] * 7


def test_webdataset_reads_the_feature_tars(recipe):
    recipe = tossing(recipe)
    encode(recipe)
    rows = read_index(recipe.dataset_folder / "shards").to_pylist()
    for found, arrays in ((latents_set(recipe, recipe.stages[0]), {"latents.npy"}), (text_set(recipe), {"raw.npy"})):
        tars = sorted(str(path) for path in found.folder.glob("*/*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
        assert sorted(sample["__key__"] for sample in samples) == sorted(row["key"] for row in rows)
        for tar in tars:  # the order of the image shard
            shard = str(Path(tar).relative_to(found.folder))
            keys = [s["__key__"] for s in samples if s["__url__"] == tar]
            assert keys == [row["key"] for row in rows if row["shard"] == shard]
        assert all(arrays <= set(sample) for sample in samples)
        assert all(isinstance(sample[name], np.ndarray) for sample in samples for name in arrays)
    assert sum("synthetic.npy" in sample for sample in samples) == 6
    assert not any("mixed.npy" in sample for sample in samples), "the mix chose one of the two, which is not repeated"


def test_a_damaged_sample_is_left_out_by_name(recipe_values, make_dataset, tmp_path):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, "PNG")
    pictures = [
        (buffer.getvalue()[:-30], "cut short", None),
        (buffer.getvalue(), None, None),
        (buffer.getvalue(), "a", "b"),
    ]
    dataset = make_dataset(tmp_path / "ds", pictures, [(40, 40)] * 3)
    recipe = TrainingRecipe.from_mapping(recipe_values | {"dataset": str(dataset)})
    text, latents, _ = encode(recipe)
    assert (text.record.num_damaged, latents.record.num_damaged, latents.record.num_samples) == (1, 2, 3)
    whys = []
    for row in read_index(dataset / "shards").to_pylist():
        try:
            assert StoredArrays(latents.folder).read(row["shard"], row["key"], "latents") is not None
        except DamagedSample as damage:
            whys.append(str(damage))
            assert row["key"] in str(damage)
    assert len(whys) == 2 and any("has no caption" in why for why in whys)


def test_another_encoder_is_refused_unless_redo(recipe):
    encode(recipe)
    values = recipe.resolved()
    values["text"]["max_tokens"] = 12
    other = TrainingRecipe.from_mapping(values)
    with pytest.raises(ValueError, match=r"text-hashed: was encoded with text\.max_tokens = 20, the recipe now has 12"):
        encode(other)
    assert encode(other, redo=True)[0].record.made_by["text.max_tokens"] == 12


def test_a_set_that_failed_before_its_first_shard_may_be_begun_with_another_encoder(recipe, monkeypatch):
    def fail(*arguments):
        raise OSError("no memory is left")

    with monkeypatch.context() as broken:
        broken.setattr("training.encode.EncodeJob._write", fail)
        with pytest.raises(PartFailed):
            encode(recipe, kind="text")
    other = recipe.model_copy(
        update={"text": recipe.text.model_copy(update={"max_tokens": recipe.text.max_tokens - 1})}
    )
    [done] = encode(other, kind="text")
    assert done.num_computed == done.num_shards


def test_missing_weights_are_named_before_anything_is_written(recipe, tmp_path):
    values = recipe.resolved()
    values["latents"] = {"codec": "sdxl", "weights": str(tmp_path)}
    with pytest.raises(ValueError, match=r"weights missing: .*set latents\.weights="):
        encode(TrainingRecipe.from_mapping(values))
    assert not recipe.features_folder.exists()


def test_only_shards_that_changed_are_encoded_anew(recipe_values, make_dataset, tmp_path):
    from tests.training.conftest import photo

    sizes = [(64, 64), (64, 64), (90, 60), (60, 90)]
    pictures = [(photo(i, *size), f"raw {i}", f"synthetic {i}") for i, size in enumerate(sizes)]
    dataset = make_dataset(tmp_path / "ds", pictures, sizes, digests=True, same_ids=True)
    recipe = TrainingRecipe.from_mapping(recipe_values | {"dataset": str(dataset)})
    encode(recipe)
    pictures[0] = (pictures[0][0], "raw 0", "synthetic 1")  # as long as it was
    for tar in (dataset / "shards").glob("*/*.tar"):
        tar.unlink()
    make_dataset(dataset, pictures[:3], sizes[:3], digests=True, same_ids=True)
    text = encode(recipe)[0]
    assert (text.num_shards, text.num_computed) == (2, 1)
    assert len(list(text.folder.glob("*/*.tar"))) == 2, "features of a shard that is gone are deleted"


def test_a_flipped_bit_in_any_file_of_a_set_is_found_and_what_is_missing_is_encoded_again(recipe):
    encode(recipe, kind="text")
    folder, shards = text_set(recipe).folder, recipe.dataset_folder / "shards"
    whole = content(folder)
    assert damaged_files(folder, shards) == []
    for place, name in enumerate(sorted(whole)):
        data = bytearray(whole[name])
        data[len(data) * (place + 1) // (len(whole) + 2)] ^= 4
        (folder / name).write_bytes(bytes(data))
        found = damaged_files(folder, shards)
        assert folder / name in found, name
        for path in found:
            path.unlink()
        encode(recipe, kind="text")
        assert content(folder) == whole, name


def test_the_files_of_a_set_in_a_store_are_compared_as_those_on_a_disk(recipe, tmp_path):
    encode(recipe, kind="text")
    places = {"shards": recipe.dataset_folder / "shards", "features/text": text_set(recipe).folder}
    files = {
        f"ds/{name}/{path.relative_to(folder)}": path.read_bytes()
        for name, folder in places.items()
        for path in folder.rglob("*")
        if path.is_file()
    }

    def found(objects: dict[str, bytes]) -> list[str]:
        with Memory(objects).used(tmp_path / "scratch"):
            place = mount_point(URL)
            bad = damaged_files(place / "features" / "text", place / "shards")
            return [f"ds/{path.relative_to(place)}" for path in bad]

    assert found(files) == []
    for name in files.keys() - {name for name in files if name.startswith("ds/shards/")}:
        data = bytearray(files[name])
        data[len(data) // 2] ^= 4
        assert name in found({**files, name: bytes(data)}), name
    gone = next(name for name in files if name.endswith(".tar") and "/shards/" in name)
    assert len(found({name: data for name, data in files.items() if name != gone})) == 2

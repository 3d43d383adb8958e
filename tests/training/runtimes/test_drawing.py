"""An exported model draws the pictures of the model it came from; what does not fit is refused in one line."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from commands.front_door import app
from schemas.training import TrainingRecipe
from training.export.weights import StoredModel, write_weights
from training.model import PixArt
from training.runtimes import openvino_runtime
from training.runtimes.drawing import sample_exported
from training.runtimes.export import export_model, quietly
from training.runtimes.manifest import Manifest
from training.runtimes.memory import model_bytes, needed, picture_bytes, require_parts
from training.sample import draw, seeds_of
from training.weak_to_strong import model_config

PROMPTS = ["a boat on the lake", "dawn"]
GIB = 2**30


@pytest.fixture(scope="module")
def recipe():
    return TrainingRecipe.from_mapping(
        {
            "dataset": "nowhere",
            "out": "nowhere",
            "model": {"depth": 1, "hidden_size": 32, "num_heads": 2},
            "latents": {"channels": 4},
            "text": {"channels": 16, "max_tokens": 20},
            "precision": "fp32",
            "sample": {"steps": 3, "guidance": 2.0},
            "stages": [
                {"name": "only", "resolution": 64, "steps": 4, "kv_compression": {"layers": [0], "ratio": 2}},
                {"name": "few", "resolution": 64, "steps": 4, "kv_compression": {"layers": [0]}, "distil": {}},
            ],
        }
    )


@pytest.fixture(scope="module")
def trained(recipe):
    torch.manual_seed(0)
    model = PixArt(model_config(recipe, recipe.stages[0]))
    for linear in (*(block.cross_attn.proj for block in model.blocks), model.final_layer.linear):
        torch.nn.init.xavier_uniform_(linear.weight)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    write_weights(StoredModel(path, trained.state_dict(), trained.config, ()), path, "sigma")
    return path


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("exports") / "openvino"
    with quietly():
        export_model(weights, folder, "openvino", "fp32")
    return folder


def few_step(folder, copy):
    """A copy of an export whose manifest says that guidance is in its weights."""
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "manifest.json").unlink()
    Manifest.read(folder).model_copy(update={"guidance": 4.5}).write(copy)
    return copy


def pictures(out, count):
    return [np.asarray(Image.open(out.with_name(f"{out.stem}-{n}.png"))) for n in range(1, count + 1)]


def eager_pictures(trained, recipe, stage, shape):
    drawn = draw(trained, recipe, stage, PROMPTS, [shape] * 2, seeds_of(PROMPTS, 5))
    return [picture.transpose(1, 2, 0) for picture in drawn]


def same(ours, theirs):
    return all(
        a.shape == b.shape and np.abs(a.astype(int) - b.astype(int)).max() <= 1
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.slow  # a graph is converted in two or three seconds
def test_the_same_seeds_draw_the_same_pictures_as_torch_at_any_size(exported, trained, recipe, tmp_path):
    for size, shape in ((None, (64, 64)), ((96, 160), (96, 160))):
        report = sample_exported(recipe, exported, PROMPTS, tmp_path / "a.png", size=size, seed=5)
        ours = pictures(tmp_path / "a.png", 2)
        assert same(ours, eager_pictures(trained, recipe, recipe.stages[0], shape))
        assert not same(ours[:1], ours[1:]) and report.captions == PROMPTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "package", "size"), [("onnx", "onnxruntime", None), ("executorch",) * 2 + ((64, 64),)]
)
def test_other_runtimes_draw_the_pictures_of_torch(runtime, package, size, weights, trained, recipe, tmp_path):
    pytest.importorskip(package)
    with quietly():
        export_model(weights, tmp_path / "exported", runtime, "fp32", size=size)
    sample_exported(recipe, tmp_path / "exported", PROMPTS, tmp_path / "a.png", seed=5)
    assert same(pictures(tmp_path / "a.png", 2), eager_pictures(trained, recipe, recipe.stages[0], (64, 64)))


@pytest.mark.slow
def test_a_few_step_export_takes_one_pass_per_step(exported, trained, recipe, tmp_path, monkeypatch):
    from training.runtimes.denoiser import Denoiser

    calls = []
    real = Denoiser.__call__
    monkeypatch.setattr(Denoiser, "__call__", lambda self, *given: calls.append(given[1]) or real(self, *given))
    recipe = recipe.model_copy(update={"sample": recipe.sample.model_copy(update={"steps": 4})})
    sample_exported(recipe, few_step(exported, tmp_path / "few"), PROMPTS, tmp_path / "a.png", seed=5)
    assert [int(each) for each in calls] == [999, 749, 499, 249] * 2
    assert same(pictures(tmp_path / "a.png", 2), eager_pictures(trained, recipe, recipe.stages[1], (64, 64)))


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_what_to_do(exported, recipe, tmp_path, monkeypatch):
    def refused(match, *, given=recipe, folder=exported, prompts=PROMPTS, **knobs):
        with pytest.raises(ValueError, match=match) as found:
            sample_exported(given, folder, prompts, tmp_path / "a.png", **knobs)
        assert "\n" not in str(found.value)

    refused(r"give at least one \(--prompt\)", prompts=[])
    refused("holds no manifest.json", folder=tmp_path)
    refused("multiples of 16 from", size=(100, 64))
    refused("are two shapes", size=(64, 64), aspect="0.5")
    refused("no aspect bucket '7'", aspect="7")
    other = recipe.model_copy(update={"text": recipe.text.model_copy(update={"channels": 8})})
    refused("takes text.channels 16 and the recipe says 8", given=other)
    longer = recipe.model_copy(update={"text": recipe.text.model_copy(update={"max_tokens": 30})})
    refused("set text.max_tokens=20", given=longer)
    three = recipe.model_copy(update={"sample": recipe.sample.model_copy(update={"steps": 3})})
    refused("draws in 1, 2, 4 or 8", given=three, folder=few_step(exported, tmp_path / "few"))
    monkeypatch.setattr("models.memory.free_bytes", lambda: GIB // 4)
    refused(
        r"too little memory: of a picture of 64x64 px the .* 0\.2 GiB are free; close other programs, or", size=(64, 64)
    )
    assert not (tmp_path / "a.png").exists()


@pytest.mark.slow
def test_the_command_draws_with_an_export_and_refuses_two_models(exported, recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json", exclude_defaults=True)))
    given = ["sample", str(tmp_path / "recipe.yaml"), "--prompt", "dawn", "--out", str(tmp_path / "a.png")]
    done = CliRunner().invoke(app, [*given, "--runtime", str(exported), "--size", "64x96"])
    assert done.exit_code == 0, done.output
    assert Image.open(tmp_path / "a.png").size == (96, 64)
    for wrong, why in (
        (["--size", "64x96"], "give --runtime FOLDER"),
        (["--runtime", str(exported), "--stage", "only"], "are two models"),
        (["--runtime", str(exported), "--size", "64"], "write height x width in px"),
        (["--out", str(tmp_path / "a.jpg")], "a PNG is written"),
    ):
        done = CliRunner().invoke(app, [*given, *wrong])
        assert done.exit_code == 1 and why in done.output.replace("\n", " "), done.output


def xl(recipe_name, runtime="openvino"):
    """The manifest of an export of XL/2 with compression in its last half, without its files."""
    return Manifest.from_mapping(
        {
            "runtime": runtime, "runtime_version": "1", "recipe": recipe_name, "files": {},
            "origin": {"name": "x", "weights": "0" * 16},
            "architecture": {
                "depth": 28, "hidden_size": 1152, "num_heads": 16, "caption_channels": 4096, "max_caption_tokens": 300,
                "image_size": 2048, "pe_interpolation": 4.0, "in_channels": 4, "patch_size": 2, "mlp_ratio": 4.0,
                "kv_compression": {"layers": list(range(14, 28)), "ratio": 2},
            },
            "sizes": {"multiple_px": 16, "minimum_px": 64, "maximum_px": 8192},
        }
    )  # fmt: skip


def test_the_formula_of_the_model_grows_with_its_tokens_and_counts_scores_where_a_runtime_has_them(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(openvino_runtime, "_has_bf16", lambda: True)
    four_k, half = (2160, 3840), (1088, 1920)
    bf16, int8, fp32, scores = (
        model_bytes(xl(name, runtime), tmp_path, four_k)
        for name, runtime in (
            ("bf16", "openvino"),
            ("int8-dynamic", "openvino"),
            ("fp32", "openvino"),
            ("fp32", "onnx"),
        )
    )
    assert 0.8 * GIB < bf16 < 0.9 * GIB and fp32 == 2 * bf16 and int8 == bf16
    assert scores > 100 * GIB
    assert model_bytes(xl("bf16"), tmp_path, half) == pytest.approx(bf16 / 4, rel=0.02)


def test_a_processor_without_bf16_takes_what_fp32_takes_and_says_so(tmp_path, monkeypatch, caplog):
    openvino = pytest.importorskip("openvino")

    def of(capabilities):
        core = SimpleNamespace(get_property=lambda device, name: {"OPTIMIZATION_CAPABILITIES": capabilities}[name])
        monkeypatch.setattr(openvino, "Core", lambda: core)
        openvino_runtime._has_bf16.cache_clear()
        return [model_bytes(xl(name), tmp_path, (2160, 3840)) for name in ("bf16", "int8-dynamic", "int4-g128", "fp32")]

    with caplog.at_level("INFO", "training"):
        *with_bf16, fp32 = of(["FP32", "INT8", "BF16"])
        assert not caplog.text
        without = of(["FP32", "INT8"])
    openvino_runtime._has_bf16.cache_clear()
    assert with_bf16 == [fp32 / 2] * 3 and without == [fp32] * 4
    assert caplog.text.count("this processor has no bf16: the model is computed in fp32") == 1


@pytest.mark.slow
def test_the_formula_of_the_vae_knows_stripes(real_components):
    from schemas.training import Latents

    def decoded(precision, *shape):
        given = {"codec": "sdxl", "weights": str(real_components), "precision": precision}
        return picture_bytes(Latents.from_mapping(given), shape)

    maps = (8 + 8 // 4) * 2160 * 3840  # the tiny VAE has 8 channels everywhere
    assert decoded("fp32", 2160, 3840) - decoded("bf16", 2160, 3840) == 2 * maps
    assert decoded("fp32", 1024, 1024) - decoded("bf16", 1024, 1024) == 2 * 3 * 8 * 1024**2


def test_memory_is_the_largest_part_and_not_their_sum(monkeypatch, caplog):
    monkeypatch.setattr("models.memory.free_bytes", lambda: 3 * GIB)
    with caplog.at_level("INFO", "training"):
        require_parts({"text encoder": 2 * GIB, "model": 3 * GIB, "picture": 2 * GIB}, (64, 96))
    assert "64x96 px take text encoder 2.0 GiB, model 3.0 GiB, picture 2.0 GiB" in caplog.text
    for part, mend in (
        ("text encoder", "text.precision=bf16"),
        ("model", "--recipe"),
        ("picture", "latents.precision"),
    ):
        with pytest.raises(ValueError, match=f"too little memory: .*{mend}"):
            require_parts({"text encoder": 0, "model": 0, "picture": 0} | {part: 4 * GIB}, (64, 96))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="counts pages as Linux does")
def test_weights_that_openvino_has_read_are_let_go_of_and_can_be_read_again(tmp_path):
    size = 64 * 2**20
    (tmp_path / "model.bin").write_bytes(bytes(range(256)) * (size // 256))

    def mapped_bytes():
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    with (tmp_path / "model.bin").open("rb") as file:
        weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    before = mapped_bytes()
    assert weights[:] == bytes(range(256)) * (size // 256)
    held = mapped_bytes()
    with openvino_runtime.held_once(weights):
        time.sleep(0.5)
    assert held - before > 0.9 * size and mapped_bytes() - before < 0.1 * size
    assert weights[1000:1003] == bytes((232, 233, 234))


def test_every_part_counts_the_libraries(recipe, tmp_path):
    parts = needed(recipe.latents, recipe.text, xl("fp32"), tmp_path, (64, 64))
    assert list(parts) == ["text encoder", "model", "picture"] and min(parts.values()) >= GIB // 2

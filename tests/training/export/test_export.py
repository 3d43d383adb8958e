"""Weights written in every layout: back again to the bit, the same answers in diffusers, and what cannot be."""

from __future__ import annotations

import errno
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from commands.front_door import app
from tests.dying import Died, dying_at
from training.export.pipeline import write_pipeline
from training.export.weights import read_model, write_weights, written_aside
from training.model import KVCompression, PixArt, PixArtConfig, load_weights
from training.model.architecture import Hints
from training.model.convert import read_torch_file, read_weights

HINTS = Hints(num_heads=4, image_size=128, pe_interpolation=1.0)


def convert(source, target, to, **reading):
    return write_weights(read_model(source, **reading), target, to)


def export_pipeline(source, target, vae, text_encoder, **reading):
    return write_pipeline(read_model(source, **reading), target, vae=vae, text_encoder=text_encoder)


def small(kv: KVCompression | None = None, **knobs) -> PixArt:
    knobs = {"image_size": 256, "pe_interpolation": 0.5} | knobs
    config = PixArtConfig(
        depth=2, hidden_size=32, num_heads=4, caption_channels=32, max_caption_tokens=300, kv_compression=kv, **knobs
    )
    model = PixArt(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def saved(model: PixArt, path):
    torch.save({"state_dict": model.state_dict()}, path)
    c = model.config
    return path, Hints(c.num_heads, c.image_size, c.pe_interpolation)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize(
    ("knob", "values"),
    [
        ("num_attention_heads", [0, -2, 2.5, "4", [4], {"a": 1}]),
        ("sample_size", [-32, 2.5, "32", [32, 32], 10**30, float("inf"), float("nan")]),
        ("interpolation_scale", [-1, "1", [1], 1e30, float("inf"), float("nan")]),
    ],
)
def test_a_description_that_no_model_has_is_refused(tmp_path, knob, values):
    source, hints = saved(small(), tmp_path / "a.pth")
    convert(source, tmp_path / "c", "diffusers", hints=hints)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    for value in values:
        (tmp_path / "c" / "config.json").write_text(json.dumps(config | {knob: value}))
        with pytest.raises(ValueError, match=r"c: the description in or next to the weights cannot be read"):
            read_model(tmp_path / "c")
    (tmp_path / "c" / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be read"):
        read_model(tmp_path / "c")


@pytest.mark.parametrize(
    ("key", "tensor", "why"),
    [
        ("x_embedder.proj.weight", torch.ones(32, 4, 0, 0), "is no PixArt; x_embedder.proj.weight has the shape"),
        ("x_embedder.proj.weight", torch.ones(0, 4, 2, 2), "is no PixArt; x_embedder.proj.weight has the shape"),
        ("x_embedder.proj.weight", torch.empty(32, 4, 2, 2, device="meta"), "without values: x_embedder.proj.weight"),
        ("blocks.99999999999.attn.proj.weight", torch.ones(1), "unexpected: blocks.99999999999"),
    ],
)
def test_weights_of_no_possible_model_are_refused(tmp_path, key, tensor, why):
    model = small()
    torch.save({"state_dict": model.state_dict() | {key: tensor}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=why):
        read_model(tmp_path / "a.pth", hints=Hints(4, 256, 0.5))


@pytest.mark.parametrize("option", ["--pe-interpolation=0", "--pe-interpolation=nan", f"--image-size={10**20}"])
def test_a_number_that_no_model_has_is_refused(tmp_path, option):
    source, _ = saved(small(), tmp_path / "a.pth")
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "b"), "--to=sigma", "--num-heads=4", option])
    assert (done.exit_code, sorted(tmp_path.iterdir())) == (1, [source])
    assert "is no number from" in done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_round_trips_are_bit_exact(tmp_path, dtype):
    source, hints = saved(small().to(dtype), tmp_path / "a.pth")
    convert(source, tmp_path / "b.safetensors", "sigma", hints=hints)
    convert(tmp_path / "b.safetensors", tmp_path / "c", "diffusers")  # knows its heads and size from here on
    convert(tmp_path / "c", tmp_path / "d.pth", "official")
    official = read_torch_file(tmp_path / "d.pth")["state_dict"]
    assert official.pop("pos_embed").shape == (1, 256, 32)
    assert equal(official, read_weights(source))
    assert equal(read_weights(tmp_path / "b.safetensors"), read_weights(source))
    assert "y_embedder.y_embedding" in official
    done = convert(tmp_path / "c", tmp_path / "e.safetensors", "sigma")
    assert (done.config.num_heads, done.config.image_size, done.config.pe_interpolation) == (4, 256, 0.5)
    assert (tmp_path / "e.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(("to", "suffix"), [("sigma", ".safetensors"), ("official", ".pth"), ("diffusers", "")])
def test_a_conversion_that_was_killed_is_finished_by_running_it_again(tmp_path, to, suffix):
    source, hints = saved(small(), tmp_path / "a.pth")
    died, change = True, -1
    while died:
        change += 1
        target = tmp_path / f"{change}{suffix}"
        try:
            with dying_at(change):
                convert(source, target, to, hints=hints)
            died = False
        except Died:
            assert target.exists() == (change == 2), "renamed by the second change, and whole"
        with suppress(ValueError):  # it exists
            convert(source, target, to, hints=hints)
        written = {k: v for k, v in read_weights(target).items() if k != "pos_embed"}
        assert equal(written, read_weights(source)) and not list(tmp_path.glob("*.partial"))
    assert change == 3


def test_written_weights_are_as_readable_as_any_new_file(tmp_path):
    source, hints = saved(small(), tmp_path / "a.pth")
    convert(source, tmp_path / "b.safetensors", "sigma", hints=hints)
    convert(source, tmp_path / "c", "diffusers", hints=hints)
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "b.safetensors", *(tmp_path / "c").iterdir()]}
    (tmp_path / "new").touch()
    assert modes == {(tmp_path / "new").stat().st_mode & 0o777}


def test_kv_compression_survives_where_it_can_and_is_refused_where_not(tmp_path):
    source, hints = saved(small(KVCompression((1,), 2)), tmp_path / "a.pth")
    done = convert(source, tmp_path / "b.safetensors", "sigma", hints=hints)
    assert done.config.kv_compression == KVCompression((1,), 2)
    convert(tmp_path / "b.safetensors", tmp_path / "c.pth", "official", hints=hints)
    assert equal(read_weights(source), {k: v for k, v in read_weights(tmp_path / "c.pth").items() if k != "pos_embed"})
    with pytest.raises(ValueError, match=r"no KV compression .* --drop-kv-compression"):
        convert(source, tmp_path / "d", "diffusers", hints=hints)
    assert not list(tmp_path.glob("d*"))
    done = convert(source, tmp_path / "d", "diffusers", hints=hints, drop_kv_compression=True)
    assert "4 tensors" in done.notes[0]
    left = read_weights(tmp_path / "d")
    assert equal(left, {k: v for k, v in read_weights(source).items() if ".sr." not in k and ".attn.norm." not in k})


def test_diffusers_answers_as_the_published_numbers(tmp_path, published, pixart_fixtures):
    from diffusers import PixArtTransformer2DModel

    convert(pixart_fixtures / "base.pth", tmp_path / "t", "diffusers", hints=HINTS)
    theirs = PixArtTransformer2DModel.from_pretrained(tmp_path / "t").eval()
    assert theirs.config.use_additional_conditions is False and theirs.config.interpolation_scale == 1
    case = published("case_a_square")
    with torch.no_grad():
        output = theirs(
            case["latents"],
            encoder_hidden_states=case["caption"][:, 0],
            timestep=case["timestep"],
            encoder_attention_mask=case["attention_mask"][:, 0, 0],
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
    assert (output - published("case_a_diffusers")["output"]).abs().max() < 1e-4
    assert (output - case["output"]).abs().max() < 1e-4
    convert(tmp_path / "t", tmp_path / "back.pth", "official")
    mine, fixture = (read_weights(path) for path in (tmp_path / "back.pth", pixart_fixtures / "base.pth"))
    assert torch.allclose(mine.pop("pos_embed"), fixture.pop("pos_embed"), atol=1e-6)
    assert equal(mine, fixture)


@pytest.mark.parametrize(("size", "pe"), [(256, 0.5), (1024, 2.0)])
def test_the_whole_pipeline_loads_samples_and_answers_as_we_do(tmp_path, real_components, size, pe):
    from diffusers import PixArtSigmaPipeline

    model = small(image_size=size, pe_interpolation=pe)
    source, hints = saved(model, tmp_path / "a.pth")
    done = export_pipeline(source, tmp_path / "p", vae=real_components, text_encoder=real_components, hints=hints)
    assert not any("aspect table" in note for note in done.notes)
    pipe = PixArtSigmaPipeline.from_pretrained(tmp_path / "p")
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe(
        "a red boat", num_inference_steps=2, height=32, width=48, use_resolution_binning=False, clean_caption=False,
        output_type="np", generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert pictures.shape == (1, 32, 48, 3)
    latents, caption = torch.randn(2, 4, 12, 8), torch.randn(2, 9, 32)
    timestep, mask = torch.tensor([999, 20]), torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    conditions = {"resolution": None, "aspect_ratio": None}
    with torch.no_grad():
        theirs = pipe.transformer(latents, caption, timestep, conditions, encoder_attention_mask=mask).sample
        ours = model(latents, timestep, caption, mask)
    assert (theirs - ours).abs().max() < 1e-4
    other = small(image_size=size, pe_interpolation=pe)
    load_weights(other, tmp_path / "p")  # a pipeline is read as weights, too
    assert equal(other.state_dict(), model.state_dict())


def test_components_that_do_not_fit_are_refused(tmp_path, real_components):
    source, hints = saved(small(in_channels=12), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"latent_channels is 4, the transformer of .* needs 12"):
        export_pipeline(source, tmp_path / "p", vae=real_components, text_encoder=real_components, hints=hints)
    with pytest.raises(ValueError, match=r"weights missing: .*then set --vae "):
        export_pipeline(source, tmp_path / "p", vae=tmp_path, text_encoder=real_components, hints=hints)
    assert not (tmp_path / "p").exists()


def test_alphas_micro_conditioning_is_refused_by_name(tmp_path, pixart_fixtures):
    path = pixart_fixtures / "micro_condition_depth1_h24.pth"
    model = PixArt(PixArtConfig(depth=1, hidden_size=24, num_heads=2, caption_channels=32, max_caption_tokens=12))
    with pytest.raises(ValueError, match=r"size and aspect-ratio conditioning \((csize|ar)_embedder"):
        load_weights(model, path)
    with pytest.raises(ValueError, match=r"size and aspect-ratio conditioning \((csize|ar)_embedder"):
        convert(path, tmp_path / "x.pth", "official", hints=HINTS)


def test_knobs_that_a_source_does_not_say_must_be_given(tmp_path, pixart_fixtures):
    source, hints = saved(small(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="--num-heads"):
        convert(source, tmp_path / "b.pth", "official")
    with pytest.raises(ValueError, match="--image-size"):
        convert(source, tmp_path / "b.pth", "official", hints=Hints(num_heads=4))
    with pytest.raises(ValueError, match=r"not that of 128 px at pe_interpolation 0\.25.*--pe-interpolation"):
        convert(pixart_fixtures / "base.pth", tmp_path / "b.pth", "official", hints=Hints(num_heads=4))
    convert(source, tmp_path / "b.pth", "official", hints=hints)
    with pytest.raises(ValueError, match="exists already"):
        convert(source, tmp_path / "b.pth", "official", hints=hints)
    with pytest.raises(ValueError, match="name a file or folder that is not there yet"):
        convert(source, Path(), "official", hints=hints)
    with pytest.raises(ValueError, match=r"^/proc/b\.pth: cannot be written"):  # whose disk is of no size, and not full
        convert(source, Path("/proc/b.pth"), "official", hints=hints)


def test_sigma_convert_writes_weights_and_notes(tmp_path):
    source, _ = saved(small(KVCompression((1,), 2)), tmp_path / "a.pth")
    known = ["--num-heads", "4", "--image-size", "256"]

    def sigma(*arguments: str):
        return CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out"), *arguments])

    refused = sigma("--to", "diffusers", *known)
    assert refused.exit_code == 1 and "--drop-kv-compression" in " ".join(refused.output.split())
    assert sigma("--to", "diffusers", "--vae", "x", *known).exit_code == 1
    done = sigma("--to", "diffusers", "--drop-kv-compression", *known)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["interpolation_scale"] == 0.5


def test_weights_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path):
    source, _ = saved(small(), tmp_path / "a.pth")
    weights = torch.load(source)["state_dict"]
    for key, value in (("blocks.0.mlp.fc1.bias", math.nan), ("final_layer.linear.weight", -math.inf)):
        spoilt = {**weights, key: torch.full_like(weights[key], value)}
        torch.save({"state_dict": spoilt}, tmp_path / "b.pth")
        with pytest.raises(ValueError, match=rf"b\.pth: {key} holds values that are not finite; name other weights"):
            read_model(tmp_path / "b.pth", hints=Hints(4, 256))


@pytest.mark.parametrize("is_folder", [False, True])
def test_of_two_that_write_one_target_the_second_is_refused(tmp_path, is_folder):
    target = tmp_path / "out"
    with written_aside(target) as aside:
        aside.mkdir() if is_folder else aside.write_bytes(b"first")
        with pytest.raises(ValueError, match=f"{target}: process {os.getpid()} on .* writes it; wait, or choose"):
            written_aside(target).__enter__()
    assert list(tmp_path.iterdir()) == [target] and (is_folder or target.read_bytes() == b"first")


def test_what_a_killed_run_left_is_written_over(tmp_path):
    (left := tmp_path / "out.partial" / "out").mkdir(parents=True)
    (left / "half.safetensors").touch()
    (left.parent / ".lock").touch()
    with written_aside(tmp_path / "out") as aside:
        aside.write_bytes(b"whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize(
    "said", [RuntimeError("unexpected pos 64 vs 0"), ValueError("iostream"), SafetensorError("I/O")]
)
@pytest.mark.parametrize("free", [0, 1 << 40])
def test_a_full_disk_is_named_whatever_a_library_says_of_it(tmp_path, monkeypatch, said, free):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free, total=1 << 30))
    with pytest.raises(ValueError if free else OSError) as refused, written_aside(tmp_path / "out") as aside:
        aside.write_bytes(b"half")
        raise said
    assert free or refused.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())

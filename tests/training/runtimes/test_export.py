"""`sigma export`: one folder or none, and one line for each thing that cannot be."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
import torch
from typer.testing import CliRunner

from commands.front_door import app
from schemas.strict import fingerprint
from tests.training.runtimes.conftest import check_nothing_is_left, tiny
from training.export.weights import StoredModel, write_weights
from training.model import KVCompression
from training.runtimes import export as exporting
from training.runtimes import kinds
from training.runtimes.denoiser import eager, load_runtime
from training.runtimes.manifest import Manifest
from training.runtimes.rounding import rounded, worst_layers


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = tiny(depth=1, kv=KVCompression(layers=(0,)))
    write_weights(StoredModel(path, model.state_dict(), model.config, ()), path, "sigma")
    return path


@pytest.fixture(scope="module")
def exported(source):
    """An export, with the lines that the command printed."""
    pytest.importorskip("openvino")
    target = source.with_name("out")
    found = CliRunner().invoke(
        app, ["export", str(source), str(target), "--runtime", "openvino", "--recipe", "int8-dynamic"]
    )
    assert found.exit_code == 0, found.output
    return target, found.output


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "copied")


def refusal(*arguments) -> str:
    """The line that the command refuses with."""
    found = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert found.exit_code == 1, found.output
    lines = [line for line in found.output.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, found.output
    return lines[0]


@pytest.mark.slow
def test_the_manifest_says_what_was_exported_and_how_exact_it_is(exported, source):
    target, said = exported
    manifest = Manifest.read(target)
    assert (manifest.runtime, manifest.recipe, manifest.origin.name) == ("openvino", "int8-dynamic", source.name)
    assert manifest.config == tiny(depth=1, kv=KVCompression(layers=(0,))).config
    assert {each.timestep for each in manifest.parity} >= {1, 500, 999}
    assert len({(each.height_px, each.width_px) for each in manifest.parity}) == 2
    assert len({each.tokens for each in manifest.parity}) == 2
    assert all(1e-4 < each.relative_error < 2e-2 and each.sqnr_db > 34 for each in manifest.parity)
    assert len(manifest.worst_layers) == 5
    assert set(manifest.files) | {"manifest.json"} == {path.name for path in target.iterdir()}
    assert "int8-dynamic" in said and "relative error at most" in said
    assert not target.with_name("out.partial").exists()


@pytest.mark.slow
def test_a_loaded_export_answers_as_torch_does_and_refuses_other_sizes(exported):
    assert sys.modules["openvino_telemetry"] is None  # where it is, a process reports home at each conversion
    denoise, model = load_runtime(exported[0], threads=1), tiny(depth=1, kv=KVCompression(layers=(0,)))
    given = torch.randn(2, 4, 10, 14), torch.tensor([999.0, 3.5]), denoise.null(9)
    expected = eager(model)(*given)
    assert (denoise(*given) - expected).norm() / expected.norm() < 2e-2
    with pytest.raises(ValueError, match=r"72x64 px .* multiples of 16 from 64 to 8192 px"):
        denoise(torch.zeros(1, 4, 9, 8), torch.zeros(1), denoise.null(3))


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "recipe"), [("openvino", "int4-g128"), ("onnx", "fp32"), ("onnx", "int4-g128")])
def test_an_export_leaves_nothing_outside_of_its_folder(runtime, recipe, tmp_path, monkeypatch):
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    check_nothing_is_left(runtime, recipe, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.bin", "model.xml", "null_caption.safetensors"])
def test_a_folder_that_was_changed_is_refused_by_the_name_of_the_file(copied, name):
    path = copied / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: was changed after the export .*; export the model again"):
        load_runtime(copied)
    path.unlink()
    for put in (lambda: None, lambda: os.mkfifo(path)):  # a pipe is not waited for
        put()
        with pytest.raises(ValueError, match=rf"{name}: is gone or no file; export the model again"):
            load_runtime(copied)


@pytest.mark.slow
def test_a_manifest_that_was_changed_is_newer_or_is_none_is_refused(copied):
    path = copied / "manifest.json"
    content = json.loads(path.read_text())

    def refused(values, why):
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        with pytest.raises(ValueError, match=why) as error:
            load_runtime(copied)
        assert "\n" not in str(error.value)

    refused(content | {"recipe": "fp32"}, "was changed after the export")
    refused(content | {"sigma_runtime": 2}, "is of format 2, here up to 1 is known; update Sigma")
    refused({"format": "another"}, "is no manifest of sigma export")
    refused("[1]", "is no manifest of sigma export")
    refused("{", "cannot be read")
    own = {key: value for key, value in content.items() if key != "digest"} | {"runtime": "tflite"}
    refused(own | {"digest": fingerprint(own)}, "runtime: input should be 'openvino', 'onnx' or 'executorch'")
    path.unlink()
    with pytest.raises(ValueError, match=r"holds no manifest.json, so it is no exported model; make one with sigma"):
        load_runtime(copied)


@pytest.mark.slow
def test_a_runtime_that_is_gone_is_named_when_an_export_is_loaded(exported, monkeypatch):
    monkeypatch.setattr(kinds, "installed", lambda package: None)
    with pytest.raises(ValueError, match=r"openvino needs openvino, .*: pip install 'sigma-pipeline\[openvino\]'"):
        load_runtime(exported[0])


@pytest.mark.parametrize(
    ("runtime", "recipe", "why"),
    [
        ("onnx", "bf16", r"no bf16 matrix product .*1\.31\.1.*onnx does fp32, int8-dynamic, int4-g128"),
        ("executorch", "int8-dynamic", r"dependency cycles.*1\.5\.1.*executorch does fp32, int4-g128"),
        ("executorch", "bf16", r"1\.5\.1"),
    ],
)
def test_a_recipe_that_a_runtime_cannot_do_is_refused_with_the_version_and_what_works(
    runtime, recipe, why, source, tmp_path
):
    with pytest.raises(ValueError, match=why):
        exporting.export_model(source, tmp_path / "out", runtime, recipe)


def test_a_runtime_that_is_not_installed_is_refused_before_the_source_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(kinds, "installed", lambda package: "1" if package == "openvino" else None)
    said = refusal(tmp_path / "absent", tmp_path / "out", "--runtime", "openvino", "--recipe", "fp32")
    assert "needs nncf, not installed here; type: pip install 'sigma-pipeline[openvino]'" in said


@pytest.mark.slow
def test_bad_input_is_one_line_and_leaves_nothing(source, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    knobs = ("--runtime", "openvino", "--recipe", "fp32")
    out = tmp_path / "out"
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"conv.weight": torch.zeros(3)}}, other)
    assert "no such weights file or folder" in refusal(tmp_path / "absent.pth", out, *knobs)
    assert "is no PixArt; missing: x_embedder.proj.weight" in refusal(other, out, *knobs)
    assert "a store is no folder" in refusal(source, "s3://bucket/out", *knobs)
    assert "multiples of 16 from 64 to 8192 px" in refusal(source, out, *knobs, "--size", "64x72")
    assert "write height x width in px" in refusal(source, out, *knobs, "--size", "64")
    monkeypatch.setattr("models.memory.free_bytes", lambda: 2**29)
    assert "takes 0.8 GiB, 0.5 GiB are free; close other programs, or export on a larger machine" in refusal(
        source, out, *knobs
    )
    out.mkdir()
    assert "exists already; choose another name, or remove it" in refusal(source, out, *knobs)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth", "out"] or not any(out.iterdir())


def test_a_graph_that_computes_something_else_is_not_written(source, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(exporting, "writer", lambda runtime: lambda *given: None)
    monkeypatch.setattr(exporting, "opened", lambda folder, manifest: lambda latents, *_: latents)
    with pytest.raises(ValueError, match=r"is not written, openvino .* computes something else \(relative error"):
        exporting.export_model(source, tmp_path / "out", "openvino", "int4-g128")
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_fails_is_named_with_its_version(source, tmp_path, monkeypatch):
    pytest.importorskip("openvino")

    def fail(*_):
        raise RuntimeError("\nNo conversion rule found\nmore")

    monkeypatch.setattr(exporting, "writer", lambda runtime: fail)
    with pytest.raises(ValueError, match=r"openvino 20.* cannot take this model in fp32 \(RuntimeError: No conversion"):
        exporting.export_model(source, tmp_path / "out", "openvino", "fp32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("recipe", "levels"), [("int8-dynamic", 256), ("int4-g128", 16)])
def test_rounding_keeps_each_row_or_group_on_its_levels_and_zero_exact(recipe, levels):
    torch.manual_seed(0)
    weight = torch.randn(6, 256)
    weight[:, 3] = 0
    found = rounded(weight, recipe)
    groups = found.reshape(-1, 128) if recipe == "int4-g128" else found
    assert max(len(group.unique()) for group in groups) <= levels
    assert (found[:, 3] == 0).all()
    assert ((found - weight).abs().amax(1) < 8 * weight.abs().amax(1) / levels).all()


def test_the_worst_layer_is_the_one_whose_weights_round_worst():
    model = torch.nn.Sequential(*(torch.nn.Linear(128, 128, bias=False) for _ in range(7)))
    with torch.no_grad():
        model[4].weight[:, 0] = 100  # an outlier in every group
    with torch.no_grad():
        found = worst_layers(model, "int4-g128", lambda: model(torch.randn(3, 128).index_fill(1, torch.tensor(0), 0)))
    assert len(found) == 5
    assert found[0].name == "4"
    assert worst_layers(model, "fp32", lambda: None) == ()


@pytest.mark.slow
def test_the_report_names_the_machine_and_measures_in_a_process_of_its_own(exported):
    found = CliRunner().invoke(app, ["export-report", str(exported[0]), "--size", "64x96", "--calls", "4"])
    assert found.exit_code == 0, found.output
    where, _, _, row = found.output.splitlines()
    assert where.startswith("measured on: ") and " 1 of them used, load " in where
    cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
    assert cells[0].startswith("tiny.safetensors, openvino 20") and cells[0].endswith("int8-dynamic, 64x96 px")
    assert "(4 passes)" in cells[4] and float(cells[5].replace(",", "")) > 50
    assert "at 1," in cells[6] and "at 999" in cells[6] and cells[7].count("%") == 5


def test_the_report_refuses_what_is_no_export(tmp_path):
    found = CliRunner().invoke(app, ["export-report", str(tmp_path)])
    assert (found.exit_code, found.stdout) == (1, "") and "holds no manifest.json" in found.stderr

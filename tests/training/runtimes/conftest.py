"""What the tests of the runtimes share: one tiny model; what is traced or made ONNX of it, once for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.export.weights import StoredModel, write_weights
from training.model import KVCompression, PixArt, PixArtConfig
from training.runtimes import onnx_runtime, openvino_runtime
from training.runtimes.export import export_model
from training.runtimes.graph import traced


def tiny(depth: int = 2, kv: KVCompression = KVCompression(layers=(1,))) -> PixArt:  # noqa: B008
    """The published initialisation, but that no output is zero; its second block compresses keys and values."""
    torch.manual_seed(0)
    config = PixArtConfig(
        depth=depth,
        hidden_size=128,
        num_heads=2,
        caption_channels=128,
        max_caption_tokens=300,
        kv_compression=kv,
    )
    model = PixArt(config)
    for linear in (*(block.cross_attn.proj for block in model.blocks), model.final_layer.linear):
        torch.nn.init.xavier_uniform_(linear.weight)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="package", autouse=True)
def converted_once() -> Iterator[None]:
    """Graphs of the same weights and sizes are traced once, and converted once for each runtime: seconds each."""
    programs: dict[object, torch.export.ExportedProgram] = {}
    graphs: dict[object, Any] = {}

    def trace(model: PixArt, fixed: tuple[int, int] | None = None) -> torch.export.ExportedProgram:
        key = (model.config, fixed, sum(float(weight.double().sum()) for weight in model.parameters()))
        if key not in programs:
            programs[key] = traced(model, fixed)
        return programs[key]

    def kept(convert: Callable[..., Any], copy: Callable[[Any], Any]) -> Callable[..., Any]:
        def once(program: torch.export.ExportedProgram) -> Any:
            key = (convert, id(program))
            if key not in graphs:
                graphs[key] = convert(program)
            return copy(graphs[key])

        return once

    copies = {
        onnx_runtime: lambda graph: type(graph).FromString(graph.SerializeToString()),
        openvino_runtime: lambda graph: graph.clone(),
    }
    with pytest.MonkeyPatch.context() as patch:
        for runtime, copy in copies.items():
            patch.setattr(runtime, "traced", trace)
            patch.setattr(runtime, "converted", kept(runtime.converted, copy))
        yield


@pytest.fixture(scope="package")
def model() -> PixArt:
    return tiny()


@pytest.fixture(scope="package")
def program(model):
    return traced(model)


def check_nothing_is_left(runtime: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export writes its folder and no other file, and takes no heed of what lies where the command is typed."""
    source, working, temporary = (tmp_path / name for name in ("tiny.safetensors", "working", "temporary"))
    model = tiny(depth=1, kv=KVCompression(layers=(0,)))
    write_weights(StoredModel(source, model.state_dict(), model.config, ()), source, "sigma")
    working.mkdir()
    temporary.mkdir()
    for name in ("model.onnx.data", "model.bin", "model.pte"):
        (working / name).write_bytes(b"of another export")
    monkeypatch.chdir(working)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    export_model(source, Path("out"), runtime, recipe, size=(64, 96))  # type: ignore[arg-type]
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there - {path for path in there if path.startswith("working/out/")} == {
        "tiny.safetensors", "working/model.onnx.data", "working/model.bin", "working/model.pte"
    }  # fmt: skip
    assert all((working / name).read_bytes() == b"of another export" for name in ("model.onnx.data", "model.bin"))

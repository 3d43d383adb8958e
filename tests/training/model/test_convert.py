"""Loading weights: every known layout, and each way a file can fail to fit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from training.model import KVCompression, PixArt, PixArtConfig, load_weights
from training.model.layouts import DIFFUSERS_BLOCK_NAMES, DIFFUSERS_FUSED, DIFFUSERS_NAMES, from_diffusers


def small(kv: KVCompression | None = None) -> PixArt:
    model = PixArt(
        PixArtConfig(depth=2, hidden_size=16, num_heads=2, caption_channels=8, max_caption_tokens=6, kv_compression=kv)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def same(a: PixArt, b: PixArt) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def to_diffusers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The layout's inverse, written independently of the reader: by suffix of the official name."""
    names = {ours: theirs for theirs, ours in (DIFFUSERS_NAMES | DIFFUSERS_BLOCK_NAMES).items()}
    out = {}
    for key, value in weights.items():
        if key == "y_embedder.y_embedding":
            continue
        if key == "final_layer.scale_shift_table":
            out["scale_shift_table"] = value
            continue
        prefix, rest = ("", key)
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            prefix = f"transformer_blocks.{number}."
        if rest == "scale_shift_table":
            out[prefix + rest] = value
            continue
        stem, leaf = rest.rsplit(".", 1)
        if stem in DIFFUSERS_FUSED:
            for name, part in zip(DIFFUSERS_FUSED[stem], value.chunk(len(DIFFUSERS_FUSED[stem])), strict=True):
                out[f"{prefix}{name}.{leaf}"] = part.contiguous()
        elif stem == "mlp.fc2":
            out[f"{prefix}ff.net.2.{leaf}"] = value
        else:
            out[f"{prefix}{names[stem]}.{leaf}"] = value
    return out


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_official_layout_loads(tmp_path, wrapped):
    source, target = small(), small()
    weights = source.state_dict() | {"pos_embed": torch.zeros(1, 4, 16)}
    torch.save({"state_dict": weights, "epoch": 3} if wrapped else weights, tmp_path / "w.pth")
    report = load_weights(target, tmp_path / "w.pth")
    assert report.ignored == ("pos_embed",)
    assert same(source, target)


def test_the_average_is_preferred_unless_refused(tmp_path):
    raw, average, target = small(), small(), small()
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": average.state_dict()}, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert same(target, average)
    load_weights(target, tmp_path / "w.pt", ema=False)
    assert same(target, raw)


@pytest.mark.parametrize("split", [False, True])
def test_a_diffusers_folder_loads(tmp_path, split):
    source, target = small(), small()
    weights = to_diffusers(source.state_dict())
    folder = tmp_path / "pipeline" / "transformer"
    folder.mkdir(parents=True)
    if split:
        names = sorted(weights)
        halves = {"a.safetensors": names[:10], "b.safetensors": names[10:]}
        for file, keys in halves.items():
            save_file({key: weights[key] for key in keys}, folder / file)
        index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    load_weights(target, tmp_path / "pipeline")
    assert same(source, target)


def test_diffusers_layout_has_the_published_keys(pixart_fixtures):
    """Renaming tensors of the published key list gives exactly the official key list."""
    report = json.loads((pixart_fixtures / "report.json").read_text())
    theirs = next(value for key, value in report.items() if "diffusers" in key and "keys" in key)
    renamed = from_diffusers({key: torch.zeros(shape) for key, shape in theirs.items()}, "published")
    official = {k: v for k, v in report["base_keys"].items() if k not in ("pos_embed", "y_embedder.y_embedding")}
    assert {key: list(value.shape) for key, value in renamed.items()} == official


def test_each_misfit_is_named(tmp_path):
    model, path = small(), tmp_path / "w.pth"

    def refused(weights: dict, message: str) -> None:
        torch.save({"state_dict": weights}, path)
        before = [p.clone() for p in model.parameters()]
        with pytest.raises(ValueError, match=message):
            load_weights(model, path)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    good = small().state_dict()
    refused({k: v for k, v in good.items() if k != "blocks.1.mlp.fc2.bias"}, r"missing: blocks\.1\.mlp\.fc2\.bias")
    refused(good | {"blocks.9.attn.qkv.weight": torch.zeros(1)}, r"unexpected: blocks\.9\.attn\.qkv\.weight")
    refused(good | {"t_block.1.bias": torch.zeros(7)}, r"t_block\.1\.bias \(7,\) where the model has \(96,\)")
    refused(good | {"csize_embedder.mlp.0.weight": torch.zeros(1)}, r"aspect-ratio conditioning \(csize_embedder")
    refused(small(KVCompression((1,), 2)).state_dict(), r"unexpected: blocks\.1\.attn\.sr\.weight")


def test_part_of_a_layers_compression_is_refused(tmp_path):
    weights = small(KVCompression((1,), 2)).state_dict()
    del weights["blocks.1.attn.norm.bias"]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.attn\.norm\.bias"):
        load_weights(small(KVCompression((1,), 2)), tmp_path / "w.pth")


def test_a_null_caption_of_other_length_is_reported(tmp_path):
    weights = small().state_dict() | {"y_embedder.y_embedding": torch.zeros(3, 8)}
    torch.save(weights, tmp_path / "w.pth")
    assert load_weights(small(), tmp_path / "w.pth").ignored == ("y_embedder.y_embedding",)


def test_a_file_without_weights_is_refused(tmp_path):
    model = small()
    with pytest.raises(ValueError, match="no such weights file"):
        load_weights(model, tmp_path / "absent.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_weights(model, tmp_path / "cut.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"123")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_weights(model, tmp_path / "bad.safetensors")
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        load_weights(model, tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="a diffusers model folder is expected"):
        load_weights(model, tmp_path)


class Payload:
    """A pickle that would write a file when loaded."""

    def __reduce__(self):
        return (open, ("/tmp/should-never-exist", "w"))


def test_a_pickle_is_not_run(tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_weights(small(), tmp_path / "evil.pth")

"""The language half as a Llama folder: read here by transformers' own LlamaForCausalLM."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import LlamaForCausalLM

from captioning.captioners.share_captioner import ShareCaptioner, language_folder
from captioning.captioners.share_captioner.files import WeightFiles
from captioning.captioners.share_captioner.loading import read_blueprint

Checkpoint = Callable[[dict[str, Tensor] | None], Path]
Tensors = Callable[[int], dict[str, Tensor]]
IDS = (torch.tensor([1, 5, 9]), torch.tensor([7, 3]))
PIXELS = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def written(checkpoint: Path, models: Path, rotary: str = "reference", dtype: str = "fp32", **overrides: Any) -> Path:
    blueprint, _ = read_blueprint(WeightFiles(checkpoint), overrides)
    return language_folder.language_folder(blueprint, rotary, dtype, models)  # type: ignore[arg-type]


@pytest.mark.parametrize("rotary", ["reference", "exact"])
def test_a_plain_llama_reads_the_folder_and_gives_the_same_logits(
    rotary: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint(None)
    ours = ShareCaptioner.load(folder, rotary)  # type: ignore[arg-type]
    llama, info = LlamaForCausalLM.from_pretrained(written(folder, tmp_path, rotary), output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    prompt = ours.prompt(PIXELS, *IDS)
    with torch.inference_mode():
        logits = llama(inputs_embeds=prompt).logits
    torch.testing.assert_close(logits, ours.logits(PIXELS, *IDS), rtol=0, atol=2e-5)
    other = ShareCaptioner.load(folder, "exact" if rotary == "reference" else "reference")
    assert (other.logits(PIXELS, *IDS) - logits).abs().max() > 1e-4, "the frequencies make a difference"


def test_without_the_language_model_pictures_become_the_same_prompts(
    checkpoint: Checkpoint, captioner: ShareCaptioner
) -> None:
    half = ShareCaptioner.load(checkpoint(None), language=False)
    assert torch.equal(half.prompt(PIXELS, *IDS), captioner.prompt(PIXELS, *IDS))
    language = {name: tensor.is_meta for name, tensor in half.model.language.state_dict().items()}
    assert [name for name, is_meta in language.items() if not is_meta] == ["model.embed_tokens.weight"]


def test_the_folder_is_written_once(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, writes = checkpoint(None), []
    write = language_folder._write

    def counted(*arguments: Any) -> None:
        writes.append(arguments[-1])
        write(*arguments)

    monkeypatch.setattr(language_folder, "_write", counted)
    with ThreadPoolExecutor(4) as pool:  # as workers of one node do; each has the lock file open for itself
        folders = set(pool.map(lambda _: written(folder, tmp_path), range(4)))
    assert writes == list(folders)
    (made,) = folders
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert written(moved, tmp_path) == made, "the same weights elsewhere are the same"


def test_another_model_rotary_or_precision_has_a_folder_of_its_own(
    checkpoint: Checkpoint, tensors: Tensors, tmp_path: Path
) -> None:
    folder, other = checkpoint(None), tensors(404)
    other["internlm_model.lm_head.weight"] = other["internlm_model.lm_head.weight"].flip(0)
    folders = {
        written(folder, tmp_path),
        written(folder, tmp_path, "exact"),
        written(folder, tmp_path, dtype="bf16"),
        written(folder, tmp_path, num_attention_heads=2, rope_theta=10_000.0, rotary="exact"),
        written(checkpoint(other), tmp_path),
    }
    assert len(folders) == 5
    assert written(folder, tmp_path, resampler_heads=8) in folders, "the resampler is not in it"


@pytest.mark.parametrize("lost", ["config.json", "model-00001.safetensors", "model.safetensors.index.json"])
def test_a_folder_that_is_not_whole_is_written_anew(lost: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint(None)
    made = written(folder, tmp_path)
    content = {path.name: path.read_bytes() for path in made.iterdir()}
    (made / lost).unlink()
    (made / "left-by-a-killed-process").touch()
    assert written(folder, tmp_path) == made
    assert {path.name: path.read_bytes() for path in made.iterdir()} == content


def test_a_large_model_is_written_in_several_files(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_folder, "FILE_BYTES", 60_000)
    made = written(checkpoint(None), tmp_path)
    files = sorted(made.glob("*.safetensors"))
    index = json.loads((made / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert sorted(set(index["weight_map"].values())) == [path.name for path in files]
    assert (
        sum(parameter.nbytes for parameter in LlamaForCausalLM.from_pretrained(made).parameters())
        == (index["metadata"]["total_size"])
    )


def test_lora_pairs_are_merged_into_it(checkpoint: Checkpoint, tensors: Tensors, tmp_path: Path) -> None:
    name = "internlm_model.model.layers.1.mlp.up_proj."
    pair = {f"{name}lora_A.weight": torch.randn(2, 64), f"{name}lora_B.weight": torch.randn(96, 2)}
    folder = checkpoint(tensors(404) | pair)
    llama = LlamaForCausalLM.from_pretrained(written(folder, tmp_path))
    expected = ShareCaptioner.load(folder).model.language.state_dict()["model.layers.1.mlp.up_proj.weight"]
    assert torch.equal(llama.state_dict()["model.layers.1.mlp.up_proj.weight"], expected)
    halved = written(folder, tmp_path, lora={"lora_alpha": 4, "lora_r": 8})
    assert halved != written(folder, tmp_path)


def test_a_full_disk_is_refused_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk(NamedTuple):
        free: int = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk())
    with pytest.raises(ValueError, match=r"0\.0 GB free, and the language model takes .* SIGMA_SCRATCH"):
        written(checkpoint(None), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_disk_that_fills_up_meanwhile_is_emptied_again(
    error: Exception, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_files = []
    save = language_folder.save_file

    def filling(tensors: dict[str, Tensor], *given: Any) -> None:
        if written_files:
            raise error
        save(tensors, *given)
        written_files.append(given[0])

    monkeypatch.setattr(language_folder, "FILE_BYTES", 60_000)
    monkeypatch.setattr(language_folder, "save_file", filling)
    folder = checkpoint(None)
    with pytest.raises(ValueError, match=r"cannot be written \(.*No space left.*\); name a folder .* SIGMA_SCRATCH$"):
        written(folder, tmp_path)
    assert written_files and not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setattr(language_folder, "save_file", save)
    assert (written(folder, tmp_path) / "config.json").is_file()


def test_a_place_that_cannot_be_written_is_refused_in_one_line(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written \(.*\); name a folder .* SIGMA_SCRATCH$"):
        written(checkpoint(None), tmp_path / "file")


def test_copies_of_models_are_in_the_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGMA_SCRATCH", str(tmp_path))
    assert language_folder.models_folder().parent == tmp_path

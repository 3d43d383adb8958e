"""What every command shares: the version, and errors that can be copied."""

from __future__ import annotations

import io
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from commands import interrupts, terminal
from commands.front_door import app


def test_version_names_the_installed_one() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"sigma {metadata.version('sigma-pipeline')}\n")


def test_an_error_in_the_place_of_an_interrupt_is_the_interrupt(monkeypatch: Any, capsys: Any) -> None:
    for error in (RuntimeError("Query interrupted"), ValueError("half an import")):
        with pytest.raises(type(error) if isinstance(error, RuntimeError) else typer.Exit), terminal.refusals():
            raise error
        with monkeypatch.context() as patched, pytest.raises(typer.Exit) as ended:
            patched.setattr(interrupts, "_raised", True)
            with terminal.refusals("stopped; nothing is left"):
                raise error
        assert ended.value.exit_code == 130
        assert capsys.readouterr().err.endswith("stopped; nothing is left\n")


def test_a_command_in_an_error_stays_on_one_line(monkeypatch: Any) -> None:
    shown = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "complaints", shown)
    command = "hf download some/repository --include '*.safetensors' --local-dir repository"
    with pytest.raises(typer.Exit), terminal.refusals():
        raise ValueError(f"weights missing: get them with `{command}`, then set caption.vlm.weights=repository")
    assert isinstance(shown.file, io.StringIO)
    assert command in shown.file.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        *(
            f"{command} s3://bucket/set"
            for command in ("status", "report", "stats", "browse", "cuts", "doctor", "demo")
        ),
        "sql gs://bucket/set SELECT",
        "purge az://bucket/set --image-id x",
        "doctor s3:/bucket/set",
        "report {here} --out s3://bucket/page.html",
        "build folder images={here} out=s3://bucket/set",
        "plan folder images={here} out=abfs://bucket/set",
        "train train_demo dataset=s3://bucket/set out={here}/run",
        "train train_demo dataset={here} out=gs://bucket/run",
    ],
)
def test_no_folder_is_named_after_a_store(words: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [word.format(here=tmp_path) for word in words.split()])
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "://bucket/" in done.stderr and "a store is no folder" in done.stderr

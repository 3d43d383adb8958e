"""What every command shares: the version, and errors that can be copied."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from commands import interrupts, terminal
from commands.front_door import app, asked_for
from schemas.files import address_of
from tests.building import build, recipe, write_pictures

ROOT = Path(__file__).parents[2]


def test_version_names_the_installed_one() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"sigma {metadata.version('sigma-pipeline')}\n")


def test_the_command_that_is_named_is_there_alone_and_the_same() -> None:
    def described(command: Any) -> tuple[str, list[tuple[str, list[str], object]], list[str]]:
        parameters = [(each.name, each.opts, each.default) for each in command.params]
        return command.help, parameters, sorted(getattr(command, "commands", ()))

    for name, whole in get_command(app).commands.items():
        (found,) = get_command(asked_for(["--debug", name, "build"])).commands.items()
        assert found[0] == name and described(found[1]) == described(whole)
    for words in ([], ["--help"], ["statsu", "status"]):
        assert asked_for(words) is app


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_that_is_started_without_a_stream_opens_no_file_in_its_place(closed: str) -> None:
    program = "import os, sys, sigma; sigma._open_streams(); print(); sys.exit(os.dup(0))"
    assert subprocess.run(["sh", "-c", f"{sys.executable} -c '{program}' {closed}"], cwd=ROOT).returncode > 2
    recipe = f"{sys.executable} -m sigma recipe train {closed}"
    done = subprocess.run(["sh", "-c", recipe], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_letters_that_an_encoding_lacks_stop_nothing() -> None:
    command = [sys.executable, "-m", "sigma", "recipe", "train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "PixArt-Σ" in done.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--help", "--version", "recipe data"])
def test_an_output_that_takes_nothing_is_one_line(words: str, unbuffered: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m sigma {words} >/dev/full"],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["build folder", "train train_demo", "doctor", "status ."])
def test_a_folder_that_is_gone_under_the_command_is_named(words: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 1 and "the folder that you are in is gone" in done.stderr


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
    ("words", "hint"),
    [
        ("build folder --images photos", "images=VALUE"),
        ("build --out=x folder", "out=VALUE"),
        ("select folder --select.min_side 512", "select.min_side=VALUE"),
        ("train train_demo --stages.0.lr 1", "stages.0.lr=VALUE"),
        ("build folder --redo", None),
        ("status --images photos", None),
    ],
)
def test_a_setting_that_is_typed_as_an_option_is_refused_with_how_to_write_it(words: str, hint: str | None) -> None:
    done = CliRunner().invoke(app, words.split())
    assert (done.exit_code, done.stdout) == (2, "")
    said = " ".join(done.stderr.replace("│", " ").split())
    assert f"a setting is written {hint}" in said if hint else "a setting is written" not in said


@pytest.mark.parametrize(
    "words",
    [
        "demo s3://bucket/set",
        "report {here} --out s3://bucket/page.html",
    ],
)
def test_no_folder_is_named_after_a_store(words: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [word.format(here=tmp_path) for word in words.split()])
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "://bucket/" in done.stderr and "a store is no folder" in done.stderr


@pytest.mark.parametrize("knobs", ["dataset=https://bucket/set out={here}/run", "dataset={here} out=hf://bucket/run"])
def test_training_refuses_what_is_neither_a_folder_nor_a_store(knobs: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["train", "train_demo", *knobs.format(here=tmp_path).split()])
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "://bucket/" in done.stderr and "in a folder, or in a store at s3://" in done.stderr


NO_PATHS = (
    "overrides redo query form source compare host allow_host why image_id sha256 url domain phash runner column stage "
    "prompt aspect device name job share until only names size"
)
"""Parameters of type str that name no file. Overrides set knobs, of which the recipes refuse a store by themselves."""


def paths_of(front_door: typer.Typer = app) -> Iterator[Any]:
    """The type, callback and kind of value of every parameter of every command that may be a path."""
    for group in front_door.registered_groups:
        assert group.typer_instance is not None
        yield from paths_of(group.typer_instance)
    for command in front_door.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        for parameter, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, *more = get_args(hint) or (hint,)
            kinds = {kind, *get_args(kind), *(inner for each in get_args(kind) for inner in get_args(each))}
            if Path in kinds or (str in kinds and parameter not in NO_PATHS.split()):
                given = Path("s3://bucket/x") if Path in kinds else "s3://bucket/x"
                is_list = any(getattr(each, "__origin__", None) is list for each in {kind, *get_args(kind)})
                yield pytest.param(more[0].callback, [given] if is_list else given, id=f"{name} {parameter}")


@pytest.mark.parametrize(("callback", "given"), paths_of())
def test_every_path_of_every_command_is_on_this_machine_or_a_dataset(callback: Any, given: Any, capsys: Any) -> None:
    if callback is terminal.placed:
        placed = callback(given)
        assert address_of(placed[0] if isinstance(given, list) else placed) == "s3://bucket/x"
        return
    with pytest.raises(typer.Exit):
        callback(given)
    assert "s3://bucket/x: a store is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["hf://user/set", "http://host/set", "file:///set", "ftp://host/x"])
def test_a_dataset_is_refused_where_it_cannot_be_written(address: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["status", address], ["build", "folder", f"images={tmp_path}", f"out={address}"]):
        done = CliRunner().invoke(app, words)
        assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
        assert "a dataset is kept in a folder, or in a store at s3://" in done.stderr


def test_the_paths_of_commands_are_found() -> None:
    found = {parameter.id for parameter in paths_of()}
    assert found >= {"purge features", "validate images", "validate folder", "index tars", "plan keep", "build recipe"}


HEAVY = (
    *("torch", "transformers", "spacy", "faiss", "ray", "pandas", "matplotlib", "sklearn", "scipy", "py3langid", "cv2"),
    *("pyarrow", "duckdb", "numpy", "PIL", "fsspec", "asyncio"),
    *("curation.sources", "curation.images.decode", "captioning.texts.gate", "schemas.pixels", "schemas.tables"),
    *("pydantic", "yaml", "schemas.recipe"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "free"), [("--help", HEAVY), ("status", HEAVY[: HEAVY.index("pydantic")])])
def test_what_a_command_does_not_need_is_not_imported(command: str, free: tuple[str, ...], tmp_path: Path) -> None:
    """`sigma status` looks at every job of a dataset: what works is imported when a job runs, see `schemas.late`."""
    words = [command]
    if command == "status":
        write_pictures(tmp_path / "photos", [(96, 64)])
        build(recipe(tmp_path / "photos", tmp_path / "dataset"), upto="ingest")
        words.append(str(tmp_path / "dataset"))
    program = (
        f"import sys\nsys.argv = {['sigma', *words]!r}\nfrom commands import front_door\n"
        "try: front_door.run()\nexcept SystemExit as ended: print(ended, file=sys.stderr)\n"
        f"print([name for name in {free!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-2:] == ["0", "[]"], done.stderr

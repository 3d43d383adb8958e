"""What a file name or a caption holds is shown, and is never an order to the terminal."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from commands import front_door, terminal
from commands.console import logging_to
from commands.harmless import DataConsole, harmless
from commands.tables import rows_table
from commands.terminal import refusals
from schemas.files import mount_point

EVIL = "\x1b]0;title\x07\x1b[31mred\x1b[2J\r\x9b31m\u202egpj.exe"


def shown(show: Callable[[DataConsole], object]) -> str:
    """What a terminal with colours gets."""
    file = io.StringIO()
    show(DataConsole(file=file, force_terminal=True, color_system="standard", width=60))
    return file.getvalue()


def table(text: str) -> Table:
    found = Table(title=text)
    found.add_column(text)
    found.add_row(Text(text))
    return found


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.print(EVIL, markup=False),
        lambda console: console.print(Text(EVIL)),
        lambda console: console.print(f"[red]{EVIL.replace('[', '')}[/]"),
        lambda console: console.print(table(EVIL)),
        lambda console: console.print(rows_table([EVIL], [(EVIL, None)])),
    ],
)
def test_no_order_of_the_data_reaches_the_terminal(show: Callable[[DataConsole], object]) -> None:
    text = shown(show)
    assert "red" in text
    for order in ("\x1b]", "\x1b[31mred", "\x1b[2J", "\x07", "\r", "\x9b", "\u202e"):
        assert order not in text


def test_log_lines_and_bars_are_as_harmless() -> None:
    def show(console: DataConsole) -> None:
        with logging_to(console, "some.package"):
            logging.getLogger("some.package").warning("%s", EVIL)
        with Progress(console=console) as bars:
            bars.add_task(EVIL.replace("[", ""), total=1)

    text = shown(show)
    assert "\x1b]0" not in text and "\x07" not in text and "\x9b" not in text and "\x1b[2J" not in text


def test_what_any_package_warns_of_is_as_harmless_and_names_the_address_in_a_store(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "lastResort", None)
    monkeypatch.setattr(sys, "excepthook", None)
    monkeypatch.setattr(sys, "argv", ["sigma", "--version"])
    with pytest.raises(SystemExit):
        front_door.run()
    assert logging.lastResort is not None and logging.lastResort.level == logging.WARNING
    logging.lastResort.handle(logging.makeLogRecord({"msg": f"{mount_point('s3://bucket/x')}: {EVIL}"}))
    told = capsys.readouterr().err
    assert told.startswith("s3://bucket/x: ") and "\x1b" not in told and "\x07" not in told


def test_errors_are_as_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    def show(console: DataConsole) -> None:
        monkeypatch.setattr(terminal, "complaints", console)
        with pytest.raises(terminal.typer.Exit), refusals():
            raise ValueError(f"{EVIL}: no such folder")

    text = shown(show)
    assert "no such folder" in text and "\x1b]" not in text and "\x1b[2J" not in text


def test_styles_and_lines_stay() -> None:
    assert shown(lambda console: console.print("[red]a[/]\n\tb")) == "\x1b[31ma\x1b[0m\n        b\n"


@given(st.text())
def test_whole_texts_are_themselves_and_all_are_harmless(text: str) -> None:
    assert harmless(harmless(text)) == harmless(text)
    if text.isprintable():
        assert harmless(text) == text
    assert not any(ord(one) < 0x20 and one not in "\t\n" for one in harmless(text))


@pytest.mark.slow
def test_the_command_prints_with_these_consoles(tmp_path: Path) -> None:
    """An error that names a folder of the user, out of the whole program."""
    command = [sys.executable, "sigma.py", "status", str(tmp_path / "\x1b[31mbad")]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 1
    assert b"bad" in done.stdout + done.stderr and b"\x1b" not in done.stdout + done.stderr

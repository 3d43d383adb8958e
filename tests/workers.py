"""Runs the test files in several processes, forked from the one that has collected them.

Collecting takes as long as hundreds of tests, because it imports everything that is tested. pytest-xdist has each of
its workers collect; here `pytest --workers 3` collects once. The files of a run are dealt out whole, because the tests
of a file share what they build, each to the first worker that is free. A worker runs its items as pytest does, and
sends the reports.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

import pytest

SECONDS = "workers/seconds"
"""Key of pytest's cache: the path of each test file -> the seconds that it took when it last ran. Runs of other marks,
which leave a part of a file out, have a key of their own."""

LONGEST = (
    "engine/test_ray_runner.py",
    "evaluation/test_folder.py",
    "engine/test_ray_cluster.py",
    "test_sigma.py",
    "test_kill_and_resume.py",
    "browser/test_pages.py",
    "test_stores.py",
    "curation/upkeep/test_repair.py",
    "training/runtimes/test_runtimes.py",
    "training/test_encode.py",
    "test_installed.py",
    "training/runtimes/test_drawing.py",
    "curation/sources/test_stores.py",
    "training/test_train.py",
    "curation/upkeep/test_killed_upkeep.py",
    "commands/test_planning.py",
    "training/parallel/test_lost_process.py",
    "captioning/test_killed_captioning.py",
    "training/parallel/test_sharding.py",
    "training/test_memory.py",
    "curation/sources/test_urls.py",
)
"""The files that take longest, of those that have few tests: for a checkout where none has run yet."""

WORKER = "worker-"
"""Begins the name of a worker's own folder, in that of the session."""


class Worker:
    """One process, and the items of its file that have not ended."""

    def __init__(self, session: pytest.Session, number: int) -> None:
        self.connection, theirs = Pipe()
        self.left: list[int] = []
        self.process = os.fork()
        if self.process == 0:
            try:
                _work(session, theirs, number)
            except BaseException:  # noqa: BLE001, the parent's stack is not the child's
                traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        theirs.close()


class _Sender:
    """Sends what happens to the tests of a worker."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config, self._connection = config, connection

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._connection.send(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))


def seconds_key(config: pytest.Config) -> str:
    return f"{SECONDS} {config.option.markexpr}".rstrip()


def files_in_order(items: Iterable[pytest.Item]) -> dict[Path, list[int]]:
    """Test file -> the places of its items, in the order of the files."""
    files: dict[Path, list[int]] = {}
    for place, item in enumerate(items):
        files.setdefault(item.path, []).append(place)
    return files


def run_in_workers(session: pytest.Session, num_workers: int) -> None:
    """Run the collected items of a session.

    Raises:
        pytest.Session.Failed: as many tests have failed as --maxfail says.
    """
    config = session.config
    files = deque(files_in_order(session.items).values())
    config.pluginmanager.getplugin("capturemanager").stop_global_capturing()  # each worker has its own
    workers = {worker.connection: worker for worker in (Worker(session, number) for number in range(num_workers))}
    cache = getattr(config, "cache", None)  # -p no:cacheprovider
    seconds: Counter[str] = Counter(cache.get(seconds_key(config), {})) if cache else Counter()
    seconds.subtract({path: seconds[path] for path in {str(item.path) for item in session.items}})
    try:
        while workers:
            for connection in wait(list(workers)):
                worker = workers[connection]  # type: ignore[index]
                for report in _reports(session, worker, files):
                    if report is None:
                        del workers[worker.connection]
                        break
                    seconds[str(session.startpath / report.location[0])] += report.duration
                    config.hook.pytest_runtest_logreport(report=report)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
        for place in [place for file in files for place in file]:
            config.hook.pytest_runtest_logreport(report=_not_run(session.items[place], "no worker was left to run it"))
    finally:
        for worker in workers.values():
            os.kill(worker.process, 9)
            os.waitpid(worker.process, 0)
    if cache:
        cache.set(seconds_key(config), {path: round(each, 2) for path, each in seconds.items()})


def _reports(session: pytest.Session, worker: Worker, files: deque[list[int]]) -> Iterator[pytest.TestReport | None]:
    """The reports that one message of a worker brings; None behind them says that it has ended."""
    try:
        message: Any = worker.connection.recv()
    except EOFError:
        _, status = os.waitpid(worker.process, 0)
        why = f"the worker ended with {os.waitstatus_to_exitcode(status)}"
        yield from (_not_run(session.items[place], why) for place in worker.left)
        yield None
        return
    if message == "next":
        worker.left = files.popleft() if files else []
        worker.connection.send(worker.left)
    elif isinstance(message, int):
        worker.left = [place for place in worker.left if place != message]
    else:
        yield session.config.hook.pytest_report_from_serializable(config=session.config, data=message)


def _not_run(item: pytest.Item, why: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")


def _work(session: pytest.Session, connection: Connection, number: int) -> NoReturn:
    """Run files until there is none."""
    config = session.config
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.getplugin("capturemanager").start_global_capturing()
    config.pluginmanager.register(_Sender(config, connection))
    folders: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    folders._basetemp = folders.getbasetemp() / f"{WORKER}{number}"
    folders._basetemp.mkdir()
    while places := _next(connection):
        for place, following in zip(places, [*places[1:], None], strict=True):
            # the session itself stands for an item of a file that is not known yet: all but its own fixtures end
            then: Any = session if following is None else session.items[following]
            config.hook.pytest_runtest_protocol(item=session.items[place], nextitem=then)
            connection.send(place)
    session._setupstate.teardown_exact(None)
    os._exit(0)


def _next(connection: Connection) -> list[int]:
    connection.send("next")
    places: list[int] = connection.recv()
    return places

"""Imports that wait: a command starts without what only a running job needs, such as Arrow, DuckDB and decoders."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Any

_ONE_AT_A_TIME = Lock()


class Late:
    """A module, or something of one, that is imported when it is called or asked for an attribute. Picklable."""

    def __init__(self, module: str, name: str | None = None) -> None:
        self._module, self._name = module, name

    def _found(self) -> Any:
        module = import_module(self._module)
        if self._name is None:
            return module
        return getattr(module, self._name, None) or import_module(f"{self._module}.{self._name}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by pickle and inspect, which import nothing by it
            raise AttributeError(name)
        return getattr(self._found(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._found()(*args, **kwargs)

    def __reduce__(self) -> tuple[type[Late], tuple[str, str | None]]:
        return Late, (self._module, self._name)


class _Source:
    """What an import statement inside `late` takes its names from."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Late:
        return Late(self._module, name)


@contextmanager
def late(importer: str) -> Iterator[None]:
    """Let the imports inside wait until they are used. What they bind is a `Late`: a module, or a function or class to
    be called; never a value, or a class to be caught, inherited or compared with (`tests/schemas/test_late.py`).
    `importer`: `__name__` of the module whose imports they are."""

    def waiting(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if globals is None or globals.get("__name__") != importer:  # of another thread
            return real(name, globals, locals, fromlist, level)
        return _Source(name) if fromlist else Late(name) if "." not in name else _Source(name.partition(".")[0])

    with _ONE_AT_A_TIME:
        real, builtins.__import__ = builtins.__import__, waiting
        try:
            yield
        finally:
            builtins.__import__ = real

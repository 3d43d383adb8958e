"""Imports that wait: a command starts without what only a running job needs, such as Arrow, DuckDB and decoders. And
the packages that there are."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any

_ONE_AT_A_TIME = Lock()


class Late:
    """A module, or something of one, that is imported when it is called or asked for an attribute, and then takes its
    own place in the module that imports it. Picklable."""

    def __init__(self, module: str, name: str | None = None, importer: str = "") -> None:
        self._module, self._name, self._importer = module, name, importer

    def _found(self) -> Any:
        found: Any = import_module(self._module)
        if self._name is not None:
            found = getattr(found, self._name, None) or import_module(f"{self._module}.{self._name}")
        names = vars(sys.modules[self._importer]) if self._importer in sys.modules else {}
        for name, bound in [*names.items()]:
            if bound is self:
                names[name] = found
        return found

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

    def __init__(self, module: str, importer: str) -> None:
        self._module, self._importer = module, importer

    def __getattr__(self, name: str) -> Late:
        return Late(self._module, name, self._importer)


@contextmanager
def late(importer: str) -> Iterator[None]:
    """Let the imports inside wait until they are used, as `lazy import` of Python 3.15 does (PEP 810).

    What they bind is a `Late`: a module, or a function or class to be called; never a value, or a class to be caught,
    inherited or compared with (`tests/schemas/test_late.py`). `importer`: `__name__` of the module whose imports they
    are.
    """

    def waiting(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if globals is None or globals.get("__name__") != importer:  # of another thread
            return real(name, globals, locals, fromlist, level)
        whole, _, inner = name.partition(".")
        return _Source(name if fromlist else whole, importer) if fromlist or inner else Late(name, None, importer)

    with _ONE_AT_A_TIME:
        real, builtins.__import__ = builtins.__import__, waiting
        try:
            yield
        finally:
            builtins.__import__ = real


@cache
def installed(package: str) -> str | None:
    """The version of a package; None where this machine does not have it."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

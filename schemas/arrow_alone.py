"""Arrow without pandas until somebody imports it: Arrow would do so where it is installed, to know its objects, which
takes every process a third of a second."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from threading import get_ident
from typing import Any


class ArrowAlone:
    """Finds Arrow and pandas as Python does. Arrow looks for pandas once, and does not find it; it looks again once
    somebody has imported it."""

    looks: int | None = None
    """The thread in which Arrow looks; 0 is none any more."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if name == "pandas" and self.looks == get_ident():
            raise ModuleNotFoundError(name)
        then = {"pyarrow": self._look, "pandas": None if self.looks is None else _look_again}.get(name)
        spec = PathFinder.find_spec(name, path, target) if then else None
        if then is None or spec is None or spec.loader is None:
            return None
        real = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            real(module)
            then()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _look(self) -> None:
        if "pandas" not in sys.modules:
            self.looks = get_ident()
            sys.modules["pyarrow"].array([])
            self.looks = 0


def _look_again() -> None:
    sys.modules["pyarrow"].array([]).to_pandas()

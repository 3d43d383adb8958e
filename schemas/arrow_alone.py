"""Arrow without pandas until somebody imports it: Arrow would do so where it is installed, to know its objects, which
takes every process a third of a second."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

import pyarrow as pa


class _Pandas(MetaPathFinder):
    """Finds pandas for everybody but Arrow, and tells Arrow once it is imported."""

    is_hidden = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find pandas as Python does; any other module is left to those that come after."""
        spec = PathFinder.find_spec(name, path, target) if name == "pandas" else None
        if spec is None or spec.loader is None:
            return None
        if self.is_hidden:
            raise ModuleNotFoundError(name)
        real = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            real(module)
            sys.meta_path.remove(self)
            pa.array([]).to_pandas()  # so Arrow looks again

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def leave_pandas() -> None:
    """Let Arrow look for pandas, which it does once, and not find it."""
    if "pandas" not in sys.modules:
        finder = _Pandas()
        sys.meta_path.insert(0, finder)
        finder.is_hidden = True
        pa.array([])
        finder.is_hidden = False

"""What the measures import: another project can lift them out with numpy and torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "evaluation"
STANDARD = {"__future__", "collections", "dataclasses", "math", "statistics", "typing"}


@pytest.mark.parametrize("name", ["arrays", "frechet", "mmd", "clip_score", "manifold", "preference"])
def test_a_measure_imports_numpy_and_torch_alone(name: str) -> None:
    tree = ast.parse((ROOM / f"{name}.py").read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in found} <= STANDARD | {"numpy", "torch", "evaluation"}
    assert {module for module in found if module.startswith("evaluation")} <= {"evaluation.arrays"}

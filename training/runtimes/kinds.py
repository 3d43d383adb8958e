"""The runtimes and recipes there are: which packages each needs, and what does not work, by its error and version."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from schemas.late import installed

Runtime = Literal["openvino", "onnx", "executorch"]
Recipe = Literal["fp32", "bf16", "int8-dynamic", "int4-g128"]
"""How weights and activations are kept."""


class Kind(NamedTuple):
    """A runtime."""

    runs: tuple[str, ...]
    """The packages that an exported model needs, the runtime's own first."""
    exports: tuple[str, ...]
    """Those that an export needs besides."""
    broken: dict[Recipe, str]
    """The recipes that it cannot do, and why."""
    one_size: str = ""
    """Why a graph is for one size of picture alone; '' where it is for any."""


KINDS: dict[Runtime, Kind] = {
    "openvino": Kind(("openvino",), ("nncf",), {}),
    "onnx": Kind(
        ("onnxruntime",),
        ("onnx", "onnxscript"),
        {"bf16": "its CPU provider has no bf16 matrix product (onnxruntime 1.31.1)"},
    ),
    "executorch": Kind(
        ("executorch",),
        ("torchao",),
        {
            "bf16": "XNNPACK leaves bf16 to portable kernels, 100 s and more per step (executorch 1.5.1)",
            "int8-dynamic": "'Invalid partition, found dependency cycles' (executorch 1.5.1)",
        },
        "it plans memory for the largest picture of a dynamic graph (std::bad_alloc, executorch 1.5.1)",
    ),
}
assert set(KINDS) == set(get_args(Runtime))


def require_recipe(runtime: Runtime, recipe: Recipe) -> None:
    """Raise a ValueError where a runtime cannot do a recipe."""
    broken = KINDS[runtime].broken
    if recipe in broken:
        works = ", ".join(name for name in get_args(Recipe) if name not in broken)
        raise ValueError(
            f"--recipe {recipe} does not work with --runtime {runtime}: {broken[recipe]}; {runtime} does {works}"
        )


def require_installed(runtime: Runtime, to_export: bool = False) -> None:
    """Raise a ValueError where a package of a runtime is missing."""
    kind = KINDS[runtime]
    if missing := [name for name in kind.runs + kind.exports * to_export if installed(name) is None]:
        raise ValueError(
            f"the runtime {runtime} needs {' and '.join(missing)}, not installed here; type: "
            f"pip install 'sigma-pipeline[{runtime}]'"
        )

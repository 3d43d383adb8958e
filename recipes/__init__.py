"""The recipes that come with Sigma; a name without a folder, such as `train_demo`, finds one where it is installed."""

from __future__ import annotations

from pathlib import Path

SHIPPED = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
"""Every recipe by its name."""


def find(name: str | Path) -> Path:
    """A recipe file: the one that `name` leads to, else the shipped one of that name.

    Raises:
        ValueError: there is neither.
    """
    path = Path(name)
    shipped = SHIPPED.get(path.stem) if path.name == str(path) and path.suffix in ("", ".yaml") else None
    if path.is_file() or (shipped is None and path.exists()):
        return path
    if shipped is None:
        raise ValueError(
            f"{path}: no such recipe file; name one of yours, or one that comes with Sigma: {', '.join(SHIPPED)}"
        )
    return shipped

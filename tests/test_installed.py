"""The command where only its wheel is installed: no checkout, and no folder of recipes beside it."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.building import write_pictures

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `sigma` of an environment that holds the wheel, and sees this one's packages but not its checkout."""
    folder = tmp_path_factory.mktemp("installed")
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "docs", "demo", "benchmarks")
    copy = shutil.copytree(ROOT, folder / "copy", ignore=left_out)  # a wheel's build writes into its tree
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, copy)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    [packages] = (folder / "env").glob("lib/python*/site-packages")
    others = (path for path in site.getsitepackages())
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in others))  # their own .pth are not followed
    [wheel] = folder.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    return folder / "env" / "bin" / "sigma"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed, and return its output."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


DEMO = """
import commands.showing, recipes
from pathlib import Path
from curation.sources.demo_photos import write_demo_photos
print(recipes.__file__, recipes.find("demo"), recipes.find("train_demo"), write_demo_photos(Path("demo")))
"""
"""What `sigma demo` needs of the wheel and of its packages; the whole takes minutes."""


def test_build_report_and_train_work_from_a_wheel_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 3)
    knobs = ["images=photos", "out=data", "select.min_short_side_px=16", "select.subsets={}", "run.runner=local"]
    told = run(installed, "build", "folder", *knobs, cwd=tmp_path)
    assert "next: sigma report" in " ".join(told.split())
    run(installed, "report", "data", cwd=tmp_path)
    assert "<h2>Captions</h2>" in (tmp_path / "data" / "report.html").read_text()
    one_step = ["dataset=data", "out=model", "--stage", "vae_adaptation", "stages.0.steps=1"]
    assert "1 steps" in run(installed, "train", "train_demo", *one_step, cwd=tmp_path)
    where, *recipe_files, num_photos = run(installed.with_name("python"), "-c", DEMO, cwd=tmp_path).split()
    assert all(Path(file).is_relative_to(installed.parents[1]) for file in (where, *recipe_files))
    assert len(recipe_files) == 2 and len(list((tmp_path / "demo").rglob("*.*"))) >= int(num_photos) > 20


def test_a_shipped_recipe_is_printed_as_it_is(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "recipe", "folder", cwd=tmp_path) == (ROOT / "recipes" / "folder.yaml").read_text()


def test_every_file_that_is_no_module_is_in_the_wheel(installed: Path) -> None:
    [wheel] = installed.parents[2].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    packages = {name.partition("/")[0] for name in held if name.endswith("/__init__.py")}
    files = (path for package in packages for path in (ROOT / package).rglob("*") if path.is_file())
    wanted = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert packages >= {"commands", "recipes", "viewer", "schemas"}
    assert wanted - held == set()

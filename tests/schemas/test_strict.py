"""Recipes refuse what they do not know, in words that mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from pydantic import TypeAdapter

from schemas.ablation import AblationRecipe
from schemas.evaluation import EvaluationRecipe, Model
from schemas.judging import JudgeRecipe
from schemas.recipe import DataRecipe
from schemas.strict import KINDS, StrictModel, apply_override, fingerprint, read_yaml
from schemas.training import TrainingRecipe


def refusal(values: dict[str, Any]) -> str:
    """The message a recipe with these values is refused with."""
    with pytest.raises(ValueError) as caught:
        DataRecipe.from_mapping({"images": "photos", "out": "dataset"} | values)
    return str(caught.value)


def test_unknown_keys_name_the_nearest() -> None:
    assert refusal({"sead": 1}) == "recipe: unknown key 'sead'; did you mean 'seed'?"
    assert refusal({"select": {"min_short_side": 3}}) == (
        "recipe: unknown key 'select.min_short_side'; did you mean 'min_short_side_px'?"
    )
    assert "known keys: synthetic_share" in refusal({"mix": {"zzz": 3}}).replace("salt, ", "")


def test_unknown_key_inside_a_list() -> None:
    message = refusal({"images": None, "sources": [{"path": "a", "nmae": "b"}]})
    assert message == "recipe: unknown key 'sources.0.nmae'; did you mean 'name'?"


def test_impossible_values_name_key_and_value() -> None:
    assert refusal({"mix": {"synthetic_share": 1.5}}) == (
        "recipe: mix.synthetic_share: input should be less than or equal to 1 (got 1.5)"
    )
    assert refusal({"run": {"runner": "spark"}}) == "recipe: run.runner: input should be 'ray' or 'local' (got 'spark')"
    for knobs, said in (
        (
            {"ingest": {"proxy_px": "512px"}},
            "ingest.proxy_px: input should be a whole number, without a unit (got '512px')",
        ),
        (
            {"mix": {"synthetic_share": "60%"}},
            "mix.synthetic_share: input should be a number, without a unit (got '60%')",
        ),
        ({"dedup": False}, "dedup: is a section, whose knobs have values; not a value itself (got False)"),
        ({"run": {"duckdb_memory": 2}}, "run.duckdb_memory: write it as 500MB, 1.5GB or 1TB (got 2)"),
        ({"sources": 5}, "sources: is a list, such as [a, b] (got 5)"),
    ):
        assert refusal(knobs) == f"recipe: {said}"


def test_an_unknown_key_is_looked_for_in_the_sections() -> None:
    assert refusal({"min_aesthetic": 5}) == "recipe: unknown key 'min_aesthetic'; did you mean 'select.min_aesthetic'?"
    with pytest.raises(ValueError, match=r"did you mean 'optimizer\.lr' or 'stages\.0\.lr'\?"):
        TrainingRecipe.from_mapping({"dataset": "d", "out": "o", "stages": [], "lr": 1})


@pytest.mark.parametrize("text", ["16:9", "1:30.5", "010", "2026-11-29", "-007"])
def test_what_a_reader_takes_for_no_number_is_a_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"file: {text}")
    assert read_yaml(tmp_path / "recipe.yaml", [f"typed={text}"]) == {"file": text, "typed": text}


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-0.5", -0.5), ("1.5e+3", 1500.0), ("0x1f", 31), ("1_000", 1000)]
)
def test_numbers_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    values: dict[str, Any] = {}
    apply_override(values, f"typed={text}")
    assert values == {"typed": value}


def test_every_problem_has_a_line() -> None:
    message = refusal({"sead": 1, "part_rows": 0})
    assert len(message.splitlines()) == 2


def test_required() -> None:
    with pytest.raises(ValueError, match="recipe: out is required"):
        DataRecipe.from_mapping({"images": "photos"})


def test_frozen() -> None:
    recipe: Any = DataRecipe(images="photos", out="dataset")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3


def test_overrides() -> None:
    values: dict[str, Any] = {"shard": {"megabytes": 1}, "stages": [{"steps": 1}, {"steps": 2}]}
    apply_override(values, "shard.megabytes=256")
    apply_override(values, "mix.salt=again")
    apply_override(values, "stages.1.steps=10")
    apply_override(values, "select.min_aesthetic=null")
    apply_override(values, "flags=[1, true]")
    apply_override(values, "images=~/My = Pictures")
    apply_override(values, "empty=")
    for key, text in (("out", "s3://photos/my ds #1"), ("prefix", "#1"), ("quoted", "'a #1'"), ("many", "[a, 'b #1']")):
        apply_override(values, f"{key}={text}")
    assert values == {
        "shard": {"megabytes": 256},
        "stages": [{"steps": 1}, {"steps": 10}],
        "mix": {"salt": "again"},
        "select": {"min_aesthetic": None},
        "flags": [1, True],
        "images": "~/My = Pictures",
        "empty": None,
        "out": "s3://photos/my ds #1",
        "prefix": "#1",
        "quoted": "a #1",
        "many": ["a", "b #1"],
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "write it as key=value"),
        ("=7", "write it as key=value"),
        ("seed.deep=1", "seed is a value, not a section"),
        ("seed.deep.er=1", "'deep' lies inside a value, not a section"),
        ("stages.5.steps=1", "'5' is not a position in a list of 1"),
        ("stages.x=1", "'x' is not a position in a list of 1"),
    ],
)
def test_malformed_overrides(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_override({"seed": 1, "stages": [{"steps": 1}]}, override)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such recipe file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="cannot be read as a recipe"):
        read_yaml(tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="a recipe is a mapping of keys to values, this is a list"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match=r"broken\.yaml: is not YAML"):
        read_yaml(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "key 'a' is there twice .* line 3, column 1"),
        ("a:\n  - {c: 1}\n  - {c: 1, d: {e: 1}, c: 1}\n", "key 'c' is there twice .* line 3"),
        ("a: !!int x\n", "holds no int"),
        ("a: !!bool maybe\n", "holds no bool"),
        ("a: !!timestamp x\n", "holds no timestamp"),
        ("a: !!float ''\n", "holds no float"),
        (f"a: {'9' * 5000}\n", "holds no int"),
    ],
)
def test_what_yaml_would_drop_or_cannot_make_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"recipe\.yaml: is not YAML: {said}"):
        read_yaml(tmp_path / "recipe.yaml")


def test_keys_that_a_merge_replaces_are_not_there_twice(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: &x {<<: &y {k: 1, l: 1}, k: 2}\nb: {<<: [*y, *x], l: 3}\n")
    assert read_yaml(tmp_path / "recipe.yaml") == {"a": {"k": 2, "l": 1}, "b": {"k": 1, "l": 3}}


def test_a_recipe_may_be_in_any_unicode_and_in_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32"):  # as PowerShell writes it
        path.write_bytes("out: Größe\n".encode(encoding))
        assert read_yaml(path) == {"out": "Größe"}
    path.write_bytes("out: Größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_yaml(path)


def test_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = DataRecipe(images="photos", out="dataset", seed=4)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert DataRecipe.load(tmp_path / "recipe.yaml") == recipe
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["select"]["max_aspect"] == 4.0
    assert DataRecipe.load(tmp_path / "recipe.yaml", ["seed=5"]).seed == 5


def test_fingerprint_names_values_not_their_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint({}) == "44136fa355b3678a"


def path_knobs(model: type[StrictModel] = StrictModel) -> Iterator[Any]:
    """The type of every knob of every recipe that is a path of this machine."""
    for name, kind in get_type_hints(model, include_extras=True).items():
        if re.search(r"\bPath\b", str(kind)) and "ClassVar" not in str(kind):
            yield pytest.param(kind, id=f"{model.__name__} {name}")
    for section in model.__subclasses__():
        yield from path_knobs(section)


@pytest.mark.parametrize("kind", path_knobs())
def test_no_knob_makes_a_folder_that_is_named_after_a_store_or_a_home(kind: Any) -> None:
    for address in ("s3://bucket/x", "s3:/bucket/x"):
        with pytest.raises(ValueError, match="s3://bucket/x: a store is no folder"):
            TypeAdapter(kind).validate_python(address)
    assert TypeAdapter(kind).validate_python("~/x") == Path.home() / "x"


LOADED = (TrainingRecipe, AblationRecipe, JudgeRecipe, EvaluationRecipe, DataRecipe)


@pytest.mark.parametrize("ours", LOADED)
@pytest.mark.parametrize("theirs", LOADED)
def test_a_recipe_of_another_kind_is_refused_with_the_command_that_takes_it(
    ours: type[StrictModel], theirs: type[StrictModel], tmp_path: Path
) -> None:
    assert theirs.recipe_kind is not None
    kind = KINDS[theirs.recipe_kind]
    for key in kind.keys:
        assert key in theirs.model_fields and all(key not in each.model_fields for each in LOADED if each is not theirs)
    file = tmp_path / "recipe.yaml"
    file.write_text("".join(f"{key}: 1\n" for key in kind.keys) + "out: x\n")
    with pytest.raises(ValueError) as refused:
        ours.load(file)
    says = f"is {theirs.recipe_kind}, which {kind.command} takes; sigma recipe "
    assert (says in str(refused.value)) == (ours is not theirs)


@pytest.mark.parametrize("knob", ["pictures", "diffusers", "runtime"])
def test_what_an_evaluation_compares_is_on_this_machine(knob: str) -> None:
    values = {knob: "s3://bucket/x"} | ({"recipe": "train.yaml"} if knob == "runtime" else {})
    with pytest.raises(ValueError, match=rf"recipe: {knob}: s3://bucket/x: a store is no folder"):
        Model.from_mapping(values)

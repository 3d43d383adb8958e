"""Strict, frozen recipe models: unknown keys and impossible values are refused with the path of the key."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from yaml.constructor import ConstructorError

from schemas.files import read_file
from schemas.locations import for_datasets, on_disk, public_url
from schemas.texts import encoding_of

DUMPER, _LOADER = getattr(yaml, "CSafeDumper", yaml.SafeDumper), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Those written in C, where PyYAML was built with them: they are ten times as fast."""
_TEXT = r"(?!.*\d[:-]\d|[-+]?0\d)"
"""Does not match 16:9, 2026-11-29 and 010, which are a number to the base of 60, a date and 8 for YAML 1.1."""

DUCKDB_MEMORY = "1.25GB"
"""What DuckDB may take unless the recipe of the dataset says otherwise."""

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Place = Annotated[str, BeforeValidator(str), AfterValidator(for_datasets)]
"""A path, or an address in a store."""
LocalPath = Annotated[Path, AfterValidator(on_disk)]
"""A path whose `~` is the home directory, as in a shell."""


def matching(pattern: str, how: str) -> AfterValidator:
    """Check a text against a pattern. `how`: what the error says to write."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise ValueError(f"write it as {how}")

    return AfterValidator(check)


Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What a generator, or DuckDB, takes as a seed."""


class _Loader(_LOADER):  # type: ignore[misc, valid-type]
    """Takes for a number what a reader takes for one, and refuses what YAML would drop or cannot make without a word.
    Raises yaml.YAMLError."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, re.compile(_TEXT + pattern.pattern, pattern.flags)) for tag, pattern in found]
        for first, found in _LOADER.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> yaml.Node | None:
        """See `Composer.get_single_node`: a key that is there twice is an error, of which YAML takes the last."""
        root: yaml.Node | None = super().get_single_node()
        found, seen = [root], set[int]()
        for node in found:
            if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
                continue
            seen.add(id(node))
            keys = set[str]()
            for each in node.value:
                key, value = each if isinstance(each, tuple) else (None, each)
                found.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        raise ConstructorError(problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark)
                    keys.add(key.value)
        return root

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """See `BaseConstructor.construct_object`, whose errors have many types: of `!!int x`, or a number too long."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(problem=f"holds no {kind} ({error})", problem_mark=node.start_mark) from None


class RecipeKind(NamedTuple):
    """What tells one kind of recipe from the others."""

    keys: frozenset[str]
    """Keys that no other kind has."""
    command: str
    """What takes it."""
    example: str
    """What `sigma recipe` prints of it."""


KINDS = {
    "a training recipe": RecipeKind(frozenset({"stages"}), "sigma train", "train_demo"),
    "an ablation recipe": RecipeKind(frozenset({"train", "operator"}), "sigma ablate", "ablate_demo"),
    "a judge's recipe": RecipeKind(frozenset({"judge", "aspects"}), "sigma judge", "judge"),
    "an evaluation recipe": RecipeKind(frozenset({"prompts", "metrics"}), "sigma evaluate", "evaluate_demo"),
    "a data recipe": RecipeKind(
        frozenset({"images", "sources", "select", "caption", "mix", "dedup", "shard", "clean"}), "sigma build", "folder"
    ),
}


class StrictModel(BaseModel):
    """Base of every recipe section: frozen, and a key it does not know is an error. The docstring of each field
    documents the knob, see `documented_yaml`."""

    recipe_kind: ClassVar[str | None] = None
    """Of a recipe: its name in `KINDS`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        coerce_numbers_to_str=True,  # out=2026 is a folder
    )

    @classmethod
    def from_mapping(cls, values: dict[str, Any], origin: str = "recipe") -> Self:
        """Build from plain values. Raises ValueError: one line per problem, naming `origin`, the dotted key and, for a
        key that does not exist, the nearest one that does."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError("\n".join(f"{origin}: {line}" for line in _explain(cls, error))) from None

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML recipe and apply `key=value` overrides (dotted keys, YAML values). Raises ValueError: the file is
        missing, is no YAML mapping, or holds a value that the model refuses."""
        values = read_yaml(path, overrides)
        if (other := cls.other_kind(values)) is not None:
            raise ValueError(f"{path}: {other}")
        return cls.from_mapping(values, origin=str(path))

    @classmethod
    def other_kind(cls, values: dict[str, Any]) -> str | None:
        """What a mapping is that was meant for another command, by a key of its own; None where it is none of those."""
        if cls.recipe_kind is None or KINDS[cls.recipe_kind].keys & values.keys():
            return None
        for name, kind in KINDS.items():
            if kind.keys & values.keys():
                ours = f"sigma recipe {KINDS[cls.recipe_kind].example} prints {cls.recipe_kind}"
                return f"is {name}, which {kind.command} takes; {ours}"
        return None

    def resolved(self) -> dict[str, Any]:
        """Every knob with its value, defaults filled in, as plain JSON types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.dump(self.resolved(), Dumper=DUMPER, sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file with `key=value` overrides applied. Raises ValueError: the file cannot be read, is not
    YAML, or is not a mapping; an override is malformed."""
    path = Path(path)
    try:
        data = read_file(path)
        text = data.decode(encoding_of(data[: 1 << 16]) or "utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such recipe file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as a recipe: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read as a recipe: {error}; save it as UTF-8") from None
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is a mapping of keys to values, this is a {type(values).__name__}")
    for override in overrides:
        apply_override(values, override)
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in place; the value is read as YAML (`true`, `0.5`, `[1, 2]`, `null`, text). A number
    in the path indexes into a list (`sigma train RECIPE stages.0.steps=10`). Raises ValueError: no `=`, or the path
    runs through something that is not a mapping or list."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"override {override!r}: write it as key=value, for example seed=7 or shard.megabytes=256")
    try:
        value = yaml.load(text, Loader=_Loader) if text.strip() else None
    except yaml.YAMLError:
        value = text
    if re.search(r"(^|\s)#", text) and (value is None or (isinstance(value, str) and "#" not in value)):
        value = text.strip()  # what is typed has no comments, and the name of a folder may have a #
    *parents, last = key.strip().split(".")
    node: Any = values
    for name in parents:
        node = _child(node, name, override)
    if isinstance(node, list):
        _child(node, last, override)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ValueError(f"override {override!r}: {'.'.join(parents)} is a value, not a section")


def _child(node: Any, name: str, override: str) -> Any:
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise ValueError(f"override {override!r}: {name!r} is not a position in a list of {len(node)}, from 0 on")
        return node[int(name)]
    if not isinstance(node, dict):
        raise ValueError(f"override {override!r}: {name!r} lies inside a value, not a section")
    if node.get(name) is None:
        node[name] = {}
    return node[name]


def fingerprint(value: Any) -> str:
    """16 hex digits that name a JSON-like value; equal values give equal digits on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_WORDS = {
    "int_parsing": "input should be a whole number, without a unit",
    "float_parsing": "input should be a number, without a unit",
    "model_type": "is a section, whose knobs have values; not a value itself",
    "tuple_type": "is a list, such as [a, b]",
    "list_type": "is a list, such as [a, b]",
    "dict_type": "is a mapping, such as {a: 1}",
}
"""pydantic's type of an error -> what it says of some that a slip of typing makes."""


def _explain(model: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in _locate(model, tuple(problem["loc"]))[0]) or "recipe"
        if problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]:
            continue  # its items were refused, each in a line of its own
        if problem["type"] == "extra_forbidden":
            lines.append(_unknown_key(model, tuple(problem["loc"]), path))
        elif problem["type"] == "missing":
            lines.append(f"{path} is required")
        else:
            message = _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            given = problem.get("input")
            given = public_url(given) if isinstance(given, str) else given
            shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
            lines.append(f"{path}: {message[:1].lower()}{message[1:]}{shown}")
    return lines


def _unknown_key(model: type[BaseModel], location: tuple[int | str, ...], path: str) -> str:
    known = sorted(_locate(model, location[:-1])[1].model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    deeper = [
        f"{section}.{'0.' if get_origin(field.annotation) is tuple else ''}{location[-1]}"
        for section, field in _locate(model, location[:-1])[1].model_fields.items()
        if any(location[-1] in inner.model_fields for inner in models_in(field.annotation))
    ]
    hint = f"known keys: {', '.join(known)}"
    if near or deeper:
        hint = f"did you mean {' or '.join(map(repr, deeper or near))}?"
    return f"unknown key {path!r}; {hint}"


def _locate(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], type[BaseModel]]:
    """A location of a validation error as the user writes it, and the model class that holds it. Where a list holds
    models of several kinds, pydantic puts the kind into the location: it names the class, and is no key."""
    kept: list[int | str] = []
    models = [model]
    for name in location:
        kinds = [one for one in models if "kind" in one.model_fields and one.model_fields["kind"].default == name]
        field = next((one.model_fields[name] for one in models if name in one.model_fields), None)
        if len(models) > 1 and kinds:
            models = kinds
            continue
        if field is not None:
            models = models_in(field.annotation) or models
        kept.append(name)
    return tuple(kept), models[0]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The model classes that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in models_in(inner)]


@cache
def _bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The body of each class in a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings of a model's fields, by the names of these. They are read where they are shown: pydantic would
    read those of every model at the start of every command."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, StrictModel):
            for field, below in pairwise(_bodies(each.__module__)[each.__name__]):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = inspect.cleandoc(text)
    return found


def documented_yaml(model: type[BaseModel], indent: int = 0) -> str:
    """Every knob of a recipe model as YAML with its default, its docstring above it as a comment."""
    lines, described = list[str](), docstrings(model)
    pad = " " * indent
    for name, field in model.model_fields.items():
        about = " ".join(described.get(name, "").split())
        lines += [f"{pad}# {text}" for text in textwrap.wrap(about, 110 - indent)]
        if isinstance(field.default, BaseModel):
            lines += [f"{pad}# {' '.join((type(field.default).__doc__ or '').split())}", f"{pad}{name}:"]
            lines.append(documented_yaml(type(field.default), indent + 2) or f"{pad}  {{}}")
        else:
            value = "REQUIRED" if field.is_required() else json.dumps(_plain(field.default))
            lines.append(f"{pad}{name}: {value}")
            for each in models_in(field.annotation):  # of a list, or of a section that is left out by default
                lines.append(f"{pad}# {' '.join((each.__doc__ or '').split())}")
                lines += [f"{pad}#   {line}" for line in documented_yaml(each).splitlines()]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

"""Settings: how groups of them are declared, read from YAML, overridden and refused.

`key=value` words of the command line override a file. Nothing here looks at the machine, and a bad
value is refused, never repaired.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

S = TypeVar("S", bound="Settings")
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def read_yaml(path: Path, what: str, keys: str) -> dict:
    """Read a YAML file that holds a mapping; `what` is a recipe or a suite. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"{path}: no such {what}; name a YAML file such as {what}s/demo.yaml")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a {what} must be a mapping with {keys}")
    return tree


def validate(kind: type[S], tree: object, where: str) -> S:
    """Return settings of `kind` from parsed YAML or JSON.

    Raises ValueError with one sentence for the first thing that is wrong.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}: {_explain(kind, first)}") from None


def parse_settings(kind: type[S], overrides: Sequence[str]) -> S:
    """Return settings made of `key=value` words alone. Raises ValueError."""
    tree: dict = {}
    for word in overrides:
        override(tree, word)
    return validate(kind, tree, "settings")


def override(tree: dict, word: str) -> None:
    """Set one value of parsed YAML by a word such as `train.steps=10`. Raises ValueError."""
    key, separator, value = word.partition("=")
    if not separator or not key:
        raise ValueError(f"'{word}' is no override; write key=value, such as train.steps=10")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ValueError(f"'{word}': '{parent}' is a value, not a group of settings")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"'{word}': not YAML: {' '.join(str(error).split())}") from None


def _explain(kind: type[Settings], error: ErrorDetails) -> str:
    loc = error["loc"]
    key = ".".join(map(str, loc)) or "recipe"
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f", not {error['input']!r:.60}"
        message = error["msg"].removeprefix("Value error, ")
        return f"'{key}': {message}{given if 'Value error' not in error['msg'] else ''}"
    known = _fields_at(kind, loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{key}'; {hint}"


def _fields_at(kind: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Return the known keys of the settings group that `loc` leads to."""
    schema = kind.model_json_schema()
    node = schema
    for step in loc:
        node = _resolve(schema, node)
        node = node.get("items", node) if isinstance(step, int) else node["properties"][step]
    return sorted(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict, node: dict) -> dict:
    while "$ref" in node or "anyOf" in node:
        if "anyOf" in node:
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
        else:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node

"""Options that several verbs share: a dataclass whose fields are options, taken as one argument."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import get_type_hints

Verb = Callable[..., None]

_KIND = inspect.Parameter.KEYWORD_ONLY


def grouped(verb: Verb) -> Verb:
    """Let a verb that takes dataclasses be a command: their fields become options of its own."""
    hints = get_type_hints(verb, include_extras=True)
    groups = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            options += [_option(field, types[field.name]) for field in fields(groups[name])]
        else:
            options.append(parameter.replace(kind=_KIND, annotation=hints[name]))

    @wraps(verb)
    def flat(**given: object) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    flat.__signature__ = inspect.Signature(options)  # pyright: ignore[reportAttributeAccessIssue]
    return flat


def _option(field: Field, annotation: object) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, _KIND, default=default, annotation=annotation)

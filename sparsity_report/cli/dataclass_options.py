"""Values whose fields are options of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the fields of a command's values, which are its keywords, as options."""
    parameters: list[inspect.Parameter] = []
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if not (isinstance(kind, type) and is_dataclass(kind)):
            parameters.append(parameter)
            continue
        values[name] = value = kind()
        kinds = get_type_hints(kind, include_extras=True)
        for option, default in vars(value).items():
            parameters.append(
                parameter.replace(name=option, default=default, annotation=kinds[option])
            )

    def called(**given: Any) -> None:
        for name, value in values.items():
            given[name] = replace(value, **{option: given.pop(option) for option in vars(value)})
        command(**given)

    called.__doc__, called.__name__ = command.__doc__, command.__name__
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called

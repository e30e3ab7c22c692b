"""What stands in asgictl.toml, or below [tool.asgictl] in pyproject.toml: options of `start`, by their names."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click


class SettingsError(click.ClickException):
    """The user's file of settings cannot be used."""

    exit_code = 2  # as a mistake on the command line


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return which of `known` may have been meant, to be put behind an error."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def read_settings(directory: Path, command: click.Command) -> tuple[str, dict[str, Any]]:
    """Return the name of the first file that is there, and its values by parameter of `command`; else ("", {}).

    What the environment cannot give, a file cannot either. Raises SettingsError, which names file and key. A value is
    of the right type, and no more is known of it: the command that takes it looks at the rest.
    """
    for name, tables in (("asgictl.toml", ()), ("pyproject.toml", ("tool", "asgictl"))):
        try:
            found: Any = tomllib.loads((directory / name).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:  # unreadable; no UTF-8, no TOML
            raise SettingsError(f"{name}: {error}") from None
        for table in tables:
            found = found.get(table, {}) if isinstance(found, dict) else {}
        if not isinstance(found, dict):
            raise SettingsError(f"{name}: {'.'.join(tables)} must be a table")
        if found or not tables:
            return name, _checked(name, found, command)
    return "", {}


def _checked(file: str, found: dict[str, Any], command: click.Command) -> dict[str, Any]:
    known = {str(each.name).replace("_", "-"): each for each in command.params if each.envvar}
    for key, value in found.items():
        if key not in known:
            raise SettingsError(f"{file}: there is no {key}" + suggestion(key, known))
        wanted = _type(known[key])
        if not all(type(each) in wanted for each in (value if isinstance(value, list) else [value])) or (
            isinstance(value, list) is not known[key].multiple
        ):
            raise SettingsError(
                f"{file}: {key} must be {'a list of ' if known[key].multiple else ''}{wanted[0].__name__}"
            )
    return {str(known[key].name): value for key, value in found.items()}


def _type(parameter: click.Parameter) -> tuple[type, ...]:
    """Return the types of TOML that a parameter takes: click by itself would make 1 of 1.5, and text of anything."""
    if isinstance(parameter.type, click.types.IntParamType):
        return (int,)
    if isinstance(parameter.type, click.types.FloatParamType):
        return float, int
    return (bool,) if isinstance(parameter.type, click.types.BoolParamType) else (str,)

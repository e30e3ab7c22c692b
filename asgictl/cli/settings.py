"""Settings of `start`: from flags, the environment, asgictl.toml or [tool.asgictl] of pyproject.toml, in this order.

click does the rest: a file is a context's `default_map`, and click knows where it has a value from.
"""

import os
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from asgictl.errors import suggestion
from asgictl.telemetry.logs import masked


class SettingsError(click.ClickException):
    """The settings file cannot be used."""

    exit_code = 2  # as a mistake on the command line


def read_settings(directory: Path, command: click.Command) -> tuple[str, dict[str, Any]]:
    """Return the name of the first file that is there, and its values by parameter of `command`; else ("", {}).

    What the environment cannot give, a file cannot either. A value is of the right type, and no more is known of it:
    the command that takes it looks at the rest. After a mistake in the file, each parameter that it does not give
    rightly has a function for a value, as click calls it: one that raises SettingsError, which names file and key. So
    `stop --name` works beside any mistake, and no command takes a default for what the file may have meant to say.
    """
    for name, tables in (("asgictl.toml", ()), ("pyproject.toml", ("tool", "asgictl"))):
        mistake = ""
        try:
            found: Any = tomllib.loads((directory / name).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:  # unreadable; no UTF-8, no TOML
            found, mistake = {}, str(error)
        for table in tables:
            found = found.get(table, {}) if isinstance(found, dict) else {}
        if not isinstance(found, dict):
            found, mistake = {}, f"{'.'.join(tables)} must be a table"
        if found or mistake or not tables:
            return name, _checked(name, found, command, mistake)
    return "", {}


def _checked(file: str, found: dict[str, Any], command: click.Command, mistake: str) -> dict[str, Any]:
    known = {str(each.name).replace("_", "-"): each for each in command.params if each.envvar}
    right, mistakes = {}, [mistake] if mistake else []
    for key, value in found.items():
        if key not in known:
            mistakes.append(f"there is no {key}" + suggestion(key, known))
            continue
        wanted, many = _types(known[key]), known[key].multiple
        if isinstance(value, list) is not many or not all(
            type(each) in wanted for each in (value if many else [value])
        ):
            mistakes.append(f"{key} must be {'a list of ' if many else ''}{wanted[0].__name__}")
        else:
            right[str(known[key].name)] = value

    def refuse(key: str) -> Any:
        without = "; --name does without the file" if key == "name" else ""
        raise SettingsError(f"{file}: {mistakes[0]}{without}")

    missing = (str(each.name) for each in known.values() if mistakes and each.name not in right)
    return right | {key: (lambda key=key: refuse(key)) for key in missing}


def defaults(group: click.Group, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings by command, as click wants them: each has those of its options that the environment can give."""
    return {
        name: defaults(command, settings)
        if isinstance(command, click.Group)
        else {str(each.name): settings[each.name] for each in command.params if each.envvar and each.name in settings}
        for name, command in group.commands.items()
    }


@dataclass(frozen=True, slots=True)
class Platform:
    """A default from a number in a variable that hosts set, as Heroku does, put into `form`; else `otherwise`."""

    variable: str
    form: str
    otherwise: str

    def __call__(self) -> str:
        given = os.environ.get(self.variable)
        if given and not given.isdecimal():
            raise click.UsageError(f"{self.variable}: {given!r} is not a whole number")
        return self.form.format(given) if given else self.otherwise

    @property
    def shown(self) -> str:
        return f"{self.otherwise}, or {self.form.format('$' + self.variable)}"


def source(ctx: click.Context, param: click.Parameter) -> str:
    """Return the source of a parameter's value: a file, a variable, "flag" or "default". ctx: the command's."""
    platform = param.default.variable if isinstance(param.default, Platform) else ""
    sources = {
        ParameterSource.ENVIRONMENT: str(param.envvar),
        ParameterSource.DEFAULT_MAP: str(ctx.find_root().obj),
        ParameterSource.DEFAULT: platform if os.environ.get(platform) else "default",
    }
    found = ctx.get_parameter_source(str(param.name))
    return sources.get(found, "flag") if found else ""


def told(ctx: click.Context) -> dict[str, dict[str, Any]]:
    """Return {key: {"value", "source"}} of a command's settings for JSON, without secrets."""
    return {
        str(param.name).replace("_", "-"): {"value": _shown(ctx.params[str(param.name)]), "source": source(ctx, param)}
        for param in ctx.command.params
        if param.envvar
    }


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [masked(each) for each in value]
    return masked(value) if isinstance(value, str) else value


class Words(click.types.StringParamType):
    """Several texts, which the environment gives as a shell would: in quotes where there are spaces."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the words of a variable."""
        try:
            return shlex.split(rv)
        except ValueError as error:
            self.fail(f"{masked(rv)!r}: {error}")


class Span(click.types.StringParamType):
    """A whole number, or two of them as `2..8`."""

    name = "N|N..M"

    def __init__(self, limits: click.IntRange) -> None:
        self._limits = limits

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a number as such, and a span as text."""
        limits: Any = self._limits
        ends = [int(limits.convert(each, param, ctx)) for each in str(value).split("..", 1)]
        if ends[0] > ends[-1]:
            self.fail(f"{value}: the smaller number comes first", param, ctx)
        return ends[0] if ends[0] == ends[-1] else f"{ends[0]}..{ends[-1]}"


def _types(parameter: click.Parameter) -> tuple[type, ...]:
    """Return the TOML types that a parameter takes: click itself would make 1 of 1.5, and text of anything."""
    if isinstance(parameter.type, click.types.IntParamType):
        return (int,)
    if isinstance(parameter.type, Span):
        return int, str
    if isinstance(parameter.type, click.types.FloatParamType):
        return float, int
    return (bool,) if isinstance(parameter.type, click.types.BoolParamType) else (str,)

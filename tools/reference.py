"""Puts what the code knows into docs/reference/: between the marks `<!-- made of code: NAME -->` and `<!-- end -->`."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

import asgictl
from asgictl import errors
from asgictl.cli.help import SECTIONS
from asgictl.cli.main import main
from asgictl.cli.start import start
from asgictl.config import EDGE_LIMITS, Limits
from asgictl.control.admin import Admin
from asgictl.wire import error_responses

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(?<=<!-- made of code: )(\w+)( -->\n).*?(?=<!-- end -->)", re.S)
ARGUMENT = r"\n(?=(?:[a-z_]+(?:, [a-z_]+)*:|Raises) )"  # of a docstring: where it begins a line
GIVEN = {"Message", "BackgroundMessage"}  # which nobody makes but asgictl


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(titles), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def code(text: object) -> str:
    """Return a text as code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def prose(text: str) -> str:
    """Return a help text or docstring as Markdown: fixed lines are code, an argument is a paragraph."""
    blocks = []
    for block in inspect.cleandoc(text).split("\n\n"):
        if block.startswith("\b\n"):
            blocks.append("```text\n" + inspect.cleandoc(block[2:]) + "\n```")
        else:
            blocks += (escaped(" ".join(part.split())) for part in re.split(ARGUMENT, block))
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Return a text of which nothing is markup, but for its code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<])", r"\\\1", part) for part in parts)


def default(option: click.Parameter, context: click.Context) -> str:
    """Return an option's default as a person writes it."""
    if (context.command.name, option.name) == ("start", "workers"):  # else this machine's would stand there
        return "the number of cores"
    value = option.get_default(context)
    if isinstance(value, bool) or value in (None, "", ()) or "UNSET" in str(value):
        return ""
    return code(f"{value:g}" if isinstance(value, float) else value)


def commands() -> str:
    """Return each command with its help and its options."""
    return "\n".join(_command(main, click.Context(main, info_name="asgictl", **main.context_settings)))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if not isinstance(command, click.Group) or command is not main:
        yield f"## {context.command_path}\n"
        yield "```text\n" + command.get_usage(context).removeprefix("Usage: ") + "\n```\n"
        yield prose(command.help or "")
        options = {
            str(each.name): each for each in command.params if isinstance(each, click.Option) and not each.hidden
        }
        for title, names in {**SECTIONS, "Options": " ".join(options)}.items():
            if found := [options.pop(name) for name in names.split() if name in options]:
                rows = (
                    [_names(each, context), prose(each.help or "").strip(), default(each, context)] for each in found
                )
                yield table([title, "what it does", "default"], rows)
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            if not each.hidden:
                yield from _command(each, click.Context(each, info_name=name, parent=context))


def _names(option: click.Option, context: click.Context) -> str:
    metavar = "" if option.is_flag else " " + _values(option, context)
    return code(", ".join([*option.opts, *option.secondary_opts]) + metavar)


def _values(option: click.Parameter, context: click.Context) -> str:
    kind = option.type
    if isinstance(kind, click.Choice):
        return ", ".join(map(str, kind.choices))
    if option.metavar:
        return option.metavar
    return "N" if kind.name == "whole number" else kind.name.upper().replace("|", " or ")


def settings() -> str:
    """Return what `start` takes from a file and from the environment."""
    context = click.Context(start)
    return table(
        ["key in a file", "variable", "value", "default"],
        (
            [
                code(str(each.name).replace("_", "-")),
                code(each.envvar),
                ("a list of " if each.multiple else "") + code(_of_file(each, context)),
                default(each, context),
            ]
            for each in start.params
            if each.envvar
        ),
    )


def _of_file(option: click.Parameter, context: click.Context) -> str:
    return "true, false" if isinstance(option, click.Option) and option.is_flag else _values(option, context)


def limits() -> str:
    """Return what `--limit` sets."""
    return table(["NAME", "default"], ([code(name), f"{getattr(Limits(), name):,}"] for name in EDGE_LIMITS))


def metrics() -> str:
    """Return the families of /metrics."""
    empty: Any = SimpleNamespace(
        history=SimpleNamespace(latest=dict), channels={}, who=dict, moves=dict, unready=str, late=dict
    )
    return table(
        ["metric", "type", "labels", "what it is"],
        (
            [
                code(family.name + "_total" * (family.type == "counter")),
                family.type,
                ", ".join(map(code, family._labelnames)),  # type: ignore[attr-defined]
                family.documentation,
            ]
            for family in Admin(empty, is_local=True).collect()
        ),
    )


def exit_statuses() -> str:
    """Return the exit statuses that an error of asgictl.errors has."""
    classes = [each for each in vars(errors).values() if inspect.isclass(each) and "exit_code" in vars(each)]
    return table(
        ["status", "error", "what happened"],
        ([str(each.exit_code), code(each.__name__), str(each.__doc__).splitlines()[0]] for each in _sorted(classes)),
    )


def _sorted(classes: list[Any]) -> list[Any]:
    return sorted(classes, key=lambda each: int(each.exit_code))


def answers() -> str:
    """Return what a client reads where no application answers, by status."""
    found = re.findall(r'^[A-Z_]+ = "(.*)"  # (\d+)$', inspect.getsource(error_responses), re.M)
    return table(["status", "text"], sorted([status, code(text)] for text, status in found))


def api() -> str:
    """Return what `asgictl` exports: signatures and docstrings, which are contracts."""
    return "\n".join(text for name in asgictl.__all__ if name[0] != "_" for text in _object(name))


def _object(name: str) -> Iterator[str]:
    found = getattr(asgictl, name)
    yield f"## {name}\n"
    yield from _described(name, found)
    if inspect.isclass(found):
        for member, value in vars(found).items():
            if member[0] != "_" and (callable(value) or isinstance(value, property)):
                yield f"### {name}.{member}\n"
                yield from _described(member, value)


def _described(name: str, found: Any) -> Iterator[str]:
    if callable(found) and name not in GIVEN:
        signature = re.sub(r"\b(?:collections\.abc|typing|asgictl(?:\.\w+)+)\.", "", str(inspect.signature(found)))
        yield f"```py\n{name}{signature}\n```\n"
    yield prose(inspect.getdoc(found) or "")


MADE: dict[str, Callable[[], str]] = {
    each.__name__: each for each in (commands, settings, limits, metrics, exit_statuses, answers, api)
}


def refresh(*, writes: bool = True) -> list[Path]:
    """Make each block anew; returns the pages that it changes."""
    changed = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        made = BLOCK.sub(lambda found: found[1] + found[2] + MADE[found[1]](), text)
        if made != text:
            changed.append(page)
            if writes:
                page.write_text(made)
    return changed

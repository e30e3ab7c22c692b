"""Options of all commands: what is no number of its kind is refused."""

from collections.abc import Iterator

import click
import pytest

from asgictl.cli.help import SECTIONS
from asgictl.cli.main import main
from asgictl.cli.options import MOST_SECONDS
from asgictl.cli.roles import interface, worker
from asgictl.cli.start import start


def numbers(group: click.Group = main) -> Iterator[tuple[click.Command, click.Option]]:
    """Return each option of each command that takes a number."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from numbers(command)
        for each in command.params:
            if isinstance(each, click.Option) and isinstance(
                each.type, click.types.IntParamType | click.types.FloatParamType
            ):
                yield command, each


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", f"{MOST_SECONDS:.0f}0", "", "x", "-1", "1,5"])
@pytest.mark.parametrize("number", list(numbers()), ids=lambda each: f"{each[0].name}{each[1].opts[-1]}")
def test_an_option_refuses_what_is_no_number(number: tuple[click.Command, click.Option], value: str) -> None:
    command, each = number
    if isinstance(each.type, click.types.IntParamType) and value.isdigit():
        return  # a count or a size may be large
    with pytest.raises(click.BadParameter):
        each.type_cast_value(click.Context(command), value)


def commands(group: click.Group = main, path: str = "asgictl") -> Iterator[tuple[str, click.Command]]:
    """Return each command that is shown, with its path."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda each: each if isinstance(each, str) else "")
def test_help_fits_80_columns_and_cuts_no_sentence(path: str, command: click.Command) -> None:
    context = click.Context(command, info_name=path, terminal_width=80, max_content_width=80)
    lines = command.get_help(context).splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and "Usage:" not in line]


def test_each_option_of_what_serves_stands_in_a_section() -> None:
    sections = [name for names in SECTIONS.values() for name in names.split()]
    served = [*start.params, *interface.params, *worker.params]
    taken = {str(each.name) for each in served if isinstance(each, click.Option)}
    assert sorted(sections) == sorted(taken)

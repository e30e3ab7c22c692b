"""Messages that an operator sends, or that were given up."""

import json
import os
from typing import Any

import click

from asgictl.cli import options


@click.group("dead-letters")
def dead_letters() -> None:
    """Events that were given up: their workers died of them, or they took too long."""


ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1)
where = options.several(options.redis, options.name)


@dead_letters.command("list")
@where
def list_(**instance: Any) -> None:
    """List them, the oldest first."""
    for letter in _dead_letters(**instance).all():
        click.echo(letter.line)


@dead_letters.command()
@click.argument("id")
@where
def show(id: str, **instance: Any) -> None:
    """Show one: what was asked, and what it carried; headers such as Cookie and Authorization are masked."""
    click.echo(_dead_letters(**instance).one(id).text)


@dead_letters.command()
@ids_argument
@where
def purge(ids: tuple[str, ...], **instance: Any) -> None:
    """Delete these, or all."""
    click.echo(f"{_dead_letters(**instance).purge(ids)} deleted")


@dead_letters.command()
@ids_argument
@where
def requeue(ids: tuple[str, ...], **instance: Any) -> None:
    """Send these background messages to their channels again, or all."""
    click.echo(f"{_dead_letters(**instance).requeue(ids)} sent again")


def _dead_letters(redis: str | None, name: str) -> Any:
    from asgictl.control.instance import Instance
    from asgictl.layers.redis.dead_letters import DeadLetters

    return DeadLetters(redis or Instance(name).redis_url(), name)


@click.command()
@click.option("--channel", metavar="NAME", help="A background channel; with --json.")
@click.option("--json", "content", metavar="OBJECT", help="What its consumer is called with.")
@click.option("--delay-seconds", type=float, default=0.0, help="How long it waits first.")
@click.option("--group", metavar="NAME", help="A group of WebSockets; with --text or --data-file.")
@click.option("--text", help="The frame for each.")
@click.option("--data-file", type=click.File("rb"), help="The same, binary; - for standard input.")
@where
def send(
    channel: str | None,
    content: str | None,
    delay_seconds: float,
    group: str | None,
    text: str | None,
    data_file: Any,
    redis: str | None,
    name: str,
) -> None:
    """Send a message to a background channel, or a frame to a group."""
    from asgictl.app.sending import Channel, Group

    os.environ["ASGICTL_NAME"] = name
    if redis:
        os.environ["ASGICTL_REDIS"] = redis
    if (channel is None) == (group is None):
        raise click.UsageError("give either --channel and --json, or --group and --text or --data-file")
    if group is not None and content is None and delay_seconds == 0:
        Group(group).send(text=text, data=data_file and data_file.read())
    elif channel is not None and content is not None and text is None and data_file is None:
        try:
            parsed = json.loads(content)
        except ValueError as error:
            raise click.UsageError(f"--json is not JSON: {error}") from None
        Channel(channel).send(parsed, delay_seconds=delay_seconds)
    else:
        raise click.UsageError("--channel takes --json and --delay-seconds; --group takes --text or --data-file")

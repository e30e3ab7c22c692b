"""Commands that send messages, and that show dead letters."""

import json
import os
from typing import Any

import click

from asgictl.cli import options


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, delete or requeue dead-lettered events.

    An event is dead-lettered if its workers died or it took longer than --timeout.
    """


ids_argument: options.Decorator = click.argument("ids", metavar="[ID]...", nargs=-1)
where: options.Decorator = options.several(options.its_redis, options.running)


@dead_letters.command("list")
@where
def list_(**instance: Any) -> None:
    """List dead letters, the oldest first."""
    is_empty = True
    for letter in _dead_letters(**instance).all():
        click.echo(letter.line)
        is_empty = False
    if is_empty:
        click.echo("no dead letters", err=True)


@dead_letters.command()
@click.argument("id")
@where
def show(id: str, **instance: Any) -> None:
    """Show one dead letter.

    Headers such as Cookie and Authorization are masked.
    """
    click.echo(_dead_letters(**instance).one(id).text)


@dead_letters.command()
@ids_argument
@where
def purge(ids: tuple[str, ...], **instance: Any) -> None:
    """Delete the dead letters with these IDs, or all."""
    click.echo(f"{_dead_letters(**instance).purge(ids)} deleted")


@dead_letters.command()
@ids_argument
@where
def requeue(ids: tuple[str, ...], **instance: Any) -> None:
    """Send the background messages with these IDs, or all, again."""
    click.echo(f"{_dead_letters(**instance).requeue(ids)} sent again")


def _dead_letters(redis: str | None, name: str) -> Any:
    from asgictl.control.instance import Instance
    from asgictl.layers.redis.dead_letters import DeadLetters

    return DeadLetters(redis or Instance(name).redis_url(), name)


@click.command()
@click.option("--channel", metavar="NAME", help="Background channel to send to; needs --json.")
@click.option("--json", "content", metavar="OBJECT", help="Message to send, a JSON object.")
@click.option(
    "--delay-seconds", type=options.Number(0), default=0.0, help="Seconds to wait before the message is delivered."
)
@click.option("--group", metavar="NAME", help="Group of WebSockets to send to; needs --text or --data-file.")
@click.option("--text", help="Text frame to send to each member.")
@click.option(
    "--data-file", type=click.File("rb"), help="File with a binary frame to send to each member; - for standard input."
)
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
    """Send a message to a background channel or a group."""
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
        except (ValueError, RecursionError) as error:  # as of what is nested too deep
            raise click.UsageError(f"--json is not JSON: {error}") from None
        Channel(channel).send(parsed, delay_seconds=delay_seconds)
    else:
        raise click.UsageError("--channel takes --json and --delay-seconds; --group takes --text or --data-file")

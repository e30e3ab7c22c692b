"""System checks: what works with one process and hurts with several, or hides others' log lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, connections

MOST_CONNECTIONS = {"postgresql": "SHOW max_connections", "mysql": "SELECT @@max_connections"}
LOCAL_CACHE = "django.core.cache.backends.locmem.LocMemCache"
LOCAL_LAYERS = ("channels.layers.InMemoryChannelLayer", "asgictl.layers.InMemoryChannelLayer")
BLOCKING_LAYER = "channels_redis.core.RedisChannelLayer"
READ_SECONDS = 5  # for which it blocks in Redis, and after which redis-py 8, which asgictl needs, gives up by default
CACHED_SESSIONS = ("django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db")


def planned() -> dict[str, Any]:
    """Return the parameters of an `asgictl start` here, without flags. Raises ClickException for a mistake in them."""
    from asgictl.cli.main import main  # no worker needs what this loads
    from asgictl.cli.settings import defaults, read_settings
    from asgictl.cli.start import default_threads, start

    file, given = read_settings(Path.cwd(), start)
    root = click.Context(main, info_name="asgictl", obj=file, default_map=defaults(main, given))
    params = start.make_context("start", [], parent=root).params
    return {**params, "threads": params["threads"] or default_threads(params["mode"])}


def most(workers: int | str) -> int:
    """Return the greatest number of workers of N or N..M."""
    return int(str(workers).rpartition("..")[2])


def check_settings(**_: Any) -> Iterator[CheckMessage]:
    """Compare Django's settings with what `asgictl start` would start here."""
    if settings.LOGGING and settings.LOGGING.get("disable_existing_loggers", True):
        yield Warning(
            "LOGGING disables the loggers that exist when it is applied: what they log is lost.",
            hint='Set LOGGING["disable_existing_loggers"] = False.',
            id="asgictl.W001",
        )
    try:
        workers = most(planned()["workers"])
    except click.ClickException as error:
        yield Error(f"asgictl start would fail here: {error.format_message()}", id="asgictl.E002")
        return
    if workers == 1:
        return
    local = [alias for alias, each in settings.CACHES.items() if each.get("BACKEND") == LOCAL_CACHE]
    if local and (settings.is_overridden("CACHES") or settings.SESSION_ENGINE in CACHED_SESSIONS):
        yield Warning(
            f"Each of up to {workers} workers has a cache of its own: CACHES[{local[0]!r}] is in local memory.",
            hint="Use a cache that processes share, such as django.core.cache.backends.redis.RedisCache.",
            id="asgictl.W002",
        )
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    for alias in [alias for alias, each in layers.items() if each.get("BACKEND") in LOCAL_LAYERS]:
        yield Warning(
            f"Groups do not reach from one worker to another: CHANNEL_LAYERS[{alias!r}] is in local memory.",
            hint="Use asgictl.layers.RedisChannelLayer.",
            id="asgictl.W003",
        )


def check_layers(**_: Any) -> Iterator[CheckMessage]:
    """Find layers of channels_redis whose blocking read redis-py's timeout ends."""
    for alias, layer in getattr(settings, "CHANNEL_LAYERS", {}).items():
        hosts = {"CONFIG": {}, **layer}["CONFIG"].get("hosts") or ["redis://localhost:6379"]
        if layer.get("BACKEND") == BLOCKING_LAYER and any(map(times_out, hosts)):
            yield Warning(
                f"A consumer to which nothing is sent for {READ_SECONDS} s ends, a WebSocket with 1011:"
                f" redis-py gives up while CHANNEL_LAYERS[{alias!r}] waits for a message.",
                hint='Set "hosts": [{"address": URL, "socket_timeout": None}], or use'
                " asgictl.layers.RedisChannelLayer.",
                id="asgictl.W005",
            )


def times_out(host: Any) -> bool:
    """Return whether redis-py gives up before an answer of a host of channels_redis is due."""
    options = host if isinstance(host, dict) else {}
    address = options.get("address", host)
    asked = parse_qs(urlsplit(address).query).get("socket_timeout", ()) if isinstance(address, str) else ()
    seconds = float(asked[0]) if asked else options.get("socket_timeout", READ_SECONDS)
    return seconds is not None and seconds <= READ_SECONDS


def check_connections(databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """Compare the connections that a database takes with those of all threads, of which a deploy has twice as many."""
    for alias in databases or ():
        connection = connections[alias]
        try:
            given = planned()
            with connection.cursor() as cursor:
                cursor.execute(MOST_CONNECTIONS[connection.vendor])
                offered = int(cursor.fetchone()[0])
        except (KeyError, DatabaseError, click.ClickException):  # SQLite; others say what is wrong
            continue
        needed = 2 * most(given["workers"]) * given["threads"]
        if needed > offered:
            yield Warning(
                f"The database {alias!r} takes {offered} connections, and a deploy may need {needed}:"
                f" {given['workers']} workers, {given['threads']} threads each, and as many that drain.",
                hint="Start fewer workers or threads (asgictl config show), or put a pooler such as PgBouncer between.",
                id="asgictl.W004",
            )

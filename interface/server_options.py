"""What is passed on to uvicorn and gunicorn: NAME=VALUE, by the names that they give to their settings."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import click
import gunicorn.config
import uvicorn
from gunicorn.errors import ConfigError
from uvicorn.main import main as uvicorn_command

from asgictl.errors import StartError, suggestion

_REFUSED = {  # names of uvicorn's and of gunicorn's, by the reason
    "TARGET says what is served": "app app_dir factory interface lifespan version wsgi_app paste raw_paste_global_conf"
    " default_proc_name",
    "--bind says where": "host port uds fd bind reuse_port",
    "asgictl starts, restarts and stops processes": "timeout_worker_healthcheck reload reload_dirs reload_includes"
    " reload_excludes reload_delay reload_engine reload_extra_files env_file config daemon pidfile check_config"
    " print_config control_socket control_socket_mode control_socket_disable worker_class worker_tmp_dir",
    "forwarding is written for what asgictl sets": "loop http http2 ws ws_max_queue h11_max_incomplete_event_size",
    "the application is loaded in each process": "preload_app",
    "use --workers": "workers",
    "use --threads": "threads",
    "all processes of an instance have one user and one directory": "user group initgroups chdir",
    "it must exceed the 60 s for which a socket may go unread": "ws_ping_timeout",
    "use --max-message-bytes": "ws_max_size websocket_max_message_size",
    "use --forwarded-allow-ips": "forwarded_allow_ips proxy_headers",
    "use --root-path": "root_path",
    "use --log-format": "log_config log_level access_log use_colors accesslog access_log_format errorlog loglevel"
    " capture_output logger_class logconfig logconfig_dict logconfig_json",
    "a drain has its own deadline": "timeout_graceful_shutdown graceful_timeout",
}
_REASONS = {name: reason for reason, names in _REFUSED.items() for name in names.split()}


def uvicorn_options(given: Iterable[str]) -> dict[str, Any]:
    """Return keywords of uvicorn.Config, of their types. Raises click.BadParameter, which says what is wrong."""
    known = {str(option.name): option for option in uvicorn_command.params}
    keywords: dict[str, Any] = {}
    for name, value in _pairs(given, known):
        if name == "headers":  # may be repeated: headers=Name:value
            header, _, content = value.partition(":")
            keywords.setdefault(name, []).append((header.strip(), content.strip()))
        else:
            try:
                keywords[name] = known[name].type.convert(value, None, None)
            except click.BadParameter as error:
                raise click.BadParameter(f"{name}: {error.message}") from None
    if "ssl_keyfile" in keywords or "ssl_certfile" in keywords:
        keywords = {"ssl_keyfile_password": "none", **keywords}  # else OpenSSL would ask for it, on a terminal
        try:
            uvicorn.Config(_nothing, interface="asgi3", log_config=None, **keywords).load()
        except (OSError, ValueError, AssertionError) as error:  # uvicorn asserts that there is an ssl_certfile
            files = f"{keywords.get('ssl_certfile')}, {keywords.get('ssl_keyfile')}"
            reason = str(error) or "ssl_certfile is missing"
            raise click.BadParameter(f"TLS cannot begin with ssl_certfile, ssl_keyfile = {files}: {reason}") from None
    return keywords


def gunicorn_settings(given: Iterable[str]) -> dict[str, str]:
    """Return settings as gunicorn's Config.set() takes them. Raises click.BadParameter, which says what is wrong."""
    known = gunicorn.config.make_settings()
    settings = dict(_pairs(given, known))
    for name, value in settings.items():
        try:
            known[name].set(value)
        except (ValueError, TypeError, ConfigError) as error:
            raise click.BadParameter(f"{name}: {error}") from None
    return settings


def check_gunicorn(where: str, given: Mapping[str, Any], ours: Container[str]) -> list[str]:
    """Check what gunicorn's own file or variable sets: what an option may not set, they may not either.

    ours: names that the command line of supervisor.conf sets, which wins: for each of them a warning is returned.
    Raises StartError, which names where and what.
    """
    known, warnings = gunicorn.config.make_settings(), []
    for name in given.keys() & known.keys() & _REASONS.keys() - {"config"}:
        setting = known[name]
        default = setting.get()
        setting.set(given[name])
        if setting.get() == default:  # it changes nothing
            continue
        if name not in ours:
            raise StartError(f"{where}: {name} cannot be set: {_REASONS[name]}")
        warnings.append(f"{where}: {name} is not heeded: {_REASONS[name]}")
    return sorted(warnings)


async def _nothing(scope: Any, receive: Any, send: Any) -> None: ...  # were it to take less, uvicorn would call it


def _pairs(given: Iterable[str], known: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{name} has no value: write NAME=VALUE")
        if name in _REASONS:
            raise click.BadParameter(f"{name} cannot be set: {_REASONS[name]}")
        if name not in known:
            raise click.BadParameter(f"there is no option {name}" + suggestion(name, {*known} - {*_REASONS}))
        yield name, value

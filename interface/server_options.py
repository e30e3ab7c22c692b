"""What is passed on to uvicorn and gunicorn: NAME=VALUE, by the names that they give to their settings."""

from collections.abc import Iterable, Mapping
from typing import Any

import click
import gunicorn.config
import uvicorn
from gunicorn.errors import ConfigError
from uvicorn.main import main as uvicorn_command

from asgictl.errors import suggestion

_REFUSED = {  # names of uvicorn's and of gunicorn's, by the reason
    "TARGET says what is served": "app factory interface lifespan version wsgi_app paste raw_paste_global_conf"
    " default_proc_name",
    "use --app-dir": "app_dir chdir",
    "use --bind": "host port uds fd bind",
    "use --workers": "workers",
    "use --threads": "threads",
    "WSGI runs in threads, ASGI on an event loop: there is nothing to choose": "worker_class",
    "each process loads the application itself": "preload_app",
    "use --reload": "reload reload_dirs reload_includes reload_excludes reload_delay reload_engine reload_extra_files",
    "use --env-file": "env_file",
    "use -d": "daemon",
    "asgictl starts, restarts and stops processes": "timeout_worker_healthcheck config pidfile check_config"
    " print_config control_socket control_socket_mode control_socket_disable worker_tmp_dir reuse_port",
    "forwarding is written for what asgictl sets": "loop http http2 ws ws_max_queue h11_max_incomplete_event_size",
    "start asgictl as that user": "user group initgroups",
    "it must exceed the 60 s for which a socket may go unread": "ws_ping_timeout",
    "use --max-message-bytes": "ws_max_size websocket_max_message_size",
    "use --forwarded-allow-ips": "forwarded_allow_ips proxy_headers",
    "use --root-path": "root_path",
    "use --access-log": "access_log accesslog access_log_format",
    "what a process prints is in `asgictl logs`": "capture_output errorlog",
    "use `asgictl logs --level`": "log_level loglevel",
    "use --log-format": "log_config use_colors logger_class logconfig logconfig_dict logconfig_json",
    "use /metrics of the admin endpoint": "statsd_host statsd_prefix dogstatsd_tags enable_backlog_metric",
    "a drain has its own deadline": "timeout_graceful_shutdown graceful_timeout",
    "use --limit header_bytes=": "limit_request_line",
    "use --limit header_fields=": "limit_request_fields",
    "use --limit header_field_bytes=": "limit_request_field_size",
    "asgictl's server has no such thing": "worker_connections pre_request post_request sendfile tmp_upload_dir"
    " proxy_protocol proxy_allow_ips protocol uwsgi_allow_ips header_map forwarder_headers secure_scheme_headers"
    " strip_header_spaces casefold_http_method permit_obsolete_folding permit_unconventional_http_method"
    " permit_unconventional_http_version http_parser http_protocols http2_cleartext http2_initial_window_size"
    " http2_max_concurrent_streams http2_max_frame_size http2_max_header_list_size asgi_loop asgi_lifespan"
    " asgi_disconnect_grace_period do_handshake_on_connect suppress_ragged_eofs ssl_context dirty_apps dirty_threads"
    " dirty_workers dirty_timeout dirty_graceful_timeout dirty_post_fork dirty_worker_init dirty_worker_exit"
    " on_dirty_starting",
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


def check_gunicorn(where: str, given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with what gunicorn's own file or variable sets, a line for each mistake.

    What an option may not set, they may not either, unless it is gunicorn's default.
    """
    known, mistakes = gunicorn.config.make_settings(), []
    for name in given.keys() & known.keys() & _REASONS.keys() - {"config"}:
        setting = known[name]
        default = setting.get()
        setting.set(given[name])
        if setting.get() != default:
            mistakes.append(f"{where}: {name} cannot be set: {_REASONS[name]}")
    return sorted(mistakes)


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

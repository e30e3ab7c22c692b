"""What may be passed on to uvicorn and gunicorn."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
import uvicorn

from asgictl.interface.server_options import check_gunicorn, gunicorn_settings, uvicorn_options


def test_uvicorns_options_have_uvicorns_types() -> None:
    given = [
        "backlog=77",
        "server_header=false",
        "ws_ping_interval=2.5",
        "ssl_ciphers=A=B",
        "headers=X-A: b",
        "headers=Y:z",
    ]
    keywords = uvicorn_options(given)
    assert keywords == {
        "backlog": 77,
        "server_header": False,
        "ws_ping_interval": 2.5,
        "ssl_ciphers": "A=B",
        "headers": [("X-A", "b"), ("Y", "z")],
    }
    assert uvicorn.Config("m:a", log_config=None, **keywords).backlog == 77


def test_gunicorns_settings_are_given_to_it_as_they_are() -> None:
    assert gunicorn_settings(["timeout=21", "spew=true"]) == {"timeout": "21", "spew": "true"}


@pytest.mark.parametrize(
    ("parse", "given", "said"),
    [
        (uvicorn_options, "backlg=1", "there is no option backlg; did you mean backlog?"),
        (uvicorn_options, "zzzzzz=1", "there is no option zzzzzz"),
        (uvicorn_options, "backlog=many", "backlog: 'many' is not a valid integer"),
        (uvicorn_options, "backlog", "backlog has no value: write NAME=VALUE"),
        (uvicorn_options, "port=1", "port cannot be set: use --bind"),
        (uvicorn_options, "http=h11", "http cannot be set: forwarding is written"),
        (uvicorn_options, "ws_ping_timeout=3", "ws_ping_timeout cannot be set: it must exceed the 60 s"),
        (uvicorn_options, "prt=1", "there is no option prt"),
        (gunicorn_settings, "timout=3", "there is no option timout; did you mean timeout?"),
        (gunicorn_settings, "timeout=soon", "timeout: invalid literal"),
        (gunicorn_settings, "workers=3", "workers cannot be set: use --workers"),
        (gunicorn_settings, "preload_app=true", "preload_app cannot be set"),
        (gunicorn_settings, "accesslog=-", "accesslog cannot be set: use --access-log"),
        (gunicorn_settings, "limit_request_fields=9", "limit_request_fields cannot be set: use --limit header_fields="),
        (gunicorn_settings, "proxy_protocol=true", "proxy_protocol cannot be set: asgictl's server has no such thing"),
        (gunicorn_settings, "post_fork=x", "post_fork: "),
    ],
)
def test_what_cannot_be_passed_on_is_refused_with_the_reason(
    parse: Callable[[Iterable[str]], dict[str, Any]], given: str, said: str
) -> None:
    with pytest.raises(click.BadParameter) as refused:
        parse([given])
    assert said in refused.value.message


def test_no_name_that_is_refused_is_suggested() -> None:
    with pytest.raises(click.BadParameter) as refused:
        uvicorn_options(["port_=1"])
    assert "did you mean" not in refused.value.message


def test_what_gunicorns_file_may_not_set_is_listed_unless_it_is_the_default() -> None:
    given = {"preload_app": False, "backlog": 9, "worker_class": "gthread", "threads": 4, "not_a_setting": 1}
    assert check_gunicorn("the file", given) == [
        "the file: threads cannot be set: use --threads",
        "the file: worker_class cannot be set: WSGI runs in threads, ASGI on an event loop: there is nothing to choose",
    ]


@pytest.mark.parametrize("given", [["ssl_certfile=absent.pem"], ["ssl_keyfile=absent.pem"], ["ssl_certfile={}/file"]])
def test_tls_that_cannot_begin_is_told_before_anything_starts(given: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no certificate")
    with pytest.raises(click.BadParameter, match="TLS cannot begin"):
        uvicorn_options([text.format(tmp_path) for text in given])

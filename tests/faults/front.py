"""nginx before an instance, and the ways to the instance: directly, and through it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Machine, free_port, is_listening, until

WAYS = ["directly", "behind nginx"]
NGINX = """
daemon off; {user} worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  upstream instance {{ server 127.0.0.1:{upstream}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://instance; proxy_http_version 1.1; {settings} }}
    location /forbidden {{ return 403; }}
  }}
}}
"""
# What nginx's documentation says for WebSockets, and for connections that are kept: bodies pass as they come.
UPGRADES = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
KEPT = 'proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_request_buffering off;'


class nginx:  # noqa: N801
    """Debian's nginx before an instance; the port on which it listens, even where there is none."""

    @staticmethod
    def program() -> str | None:
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def __init__(self, machine: Machine, directory: Path, settings: str) -> None:
        self._port, self._conf = free_port(), directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        ports = {"port": self._port, "upstream": machine.port}
        self._conf.write_text(NGINX.format(user=user, directory=directory, settings=settings, **ports))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> int:
        if program := self.program():
            log = str(self._conf.parent / "error.log")
            self._process = subprocess.Popen([program, "-p", self._conf.parent, "-c", self._conf, "-e", log])
            until(lambda: is_listening(self._port), "nginx listens")
        return self._port

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(60)


def demand(way: str) -> None:
    """Skip a test behind nginx where there is none, or fail it where this run demands one."""
    if way == "behind nginx" and nginx.program() is None:
        if os.environ.get("ASGICTL_DEMAND_NGINX"):
            pytest.fail("this run demands nginx, and there is none")
        pytest.skip("NOT RUN: no nginx on this machine")

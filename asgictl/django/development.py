"""What `manage.py runasgictl` adds to the project in each process: changed templates, and static files."""

from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.template.autoreload import reset_loaders

from asgictl.app.application import declared_mounts


def prepare() -> None:
    """Have every Application serve static files as runserver does, where DEBUG is on, and read templates anew."""
    if not settings.DEBUG:
        return
    request_started.connect(lambda **_: reset_loaders(), weak=False)
    url = urlsplit(settings.STATIC_URL or "")
    if apps.is_installed("django.contrib.staticfiles") and url.path and not url.netloc:
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        # Middleware is loaded by a WSGIHandler that is made, which is too early here: not all apps are ready.
        others = lambda *request: WSGIHandler()(*request)  # noqa: E731
        declared_mounts[url.path] = StaticFilesHandler(others)

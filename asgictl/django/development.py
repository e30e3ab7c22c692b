"""What `manage.py runasgictl` serves: the project's TARGET, and its static files while DEBUG is on."""

import os
from urllib.parse import urlsplit

from asgictl.app.application import Application
from asgictl.app.target import load_target
from asgictl.django import TARGET
from asgictl.wire.routing import longest_first


def with_static_files(application: Application) -> Application:
    """Serve files of STATIC_URL as runserver does, where DEBUG is on; and read changed templates anew."""
    from django.apps import apps
    from django.conf import settings
    from django.core.signals import request_started
    from django.core.wsgi import get_wsgi_application
    from django.template.autoreload import reset_loaders

    site = get_wsgi_application()  # sets Django up, if TARGET has not
    if not settings.DEBUG:
        return application
    request_started.connect(lambda **_: reset_loaders(), weak=False)
    url = urlsplit(settings.STATIC_URL or "")
    if apps.is_installed("django.contrib.staticfiles") and url.path and not url.netloc:
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        application.http = longest_first({**application.http, url.path: StaticFilesHandler(site)})
    return application


application: Application = with_static_files(load_target(os.environ[TARGET], os.environ.get("ASGICTL_APP_DIR", "")))

"""Django in the process of TARGET: its URLconf, and a WebSocket's session and user by the cookie of its handshake."""

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from asgictl.errors import ConsumerError


def is_set_up(module: str) -> bool:
    """Return whether this module of Django's is imported, and has its settings: a library may import it alone."""
    return module in sys.modules and bool(sys.modules["django.conf"].settings.configured)


def load_urlconf() -> None:
    """Load the URLconf, and the views that it names, which Django itself does at the first request.

    Nothing happens where TARGET does not serve Django's pages. May raise anything, as the import of a module.
    """
    if not is_set_up("django.core.handlers.base"):
        return
    from django.apps import apps
    from django.conf import settings
    from django.urls import get_resolver

    if apps.ready and hasattr(settings, "ROOT_URLCONF"):
        get_resolver().url_patterns  # noqa: B018 - to look at it loads it


def session_of(cookie: str) -> Any:
    """Return the session, which is loaded when it is looked at, and saved by its save() alone.

    cookie: the header's value, "" for none. Raises ConsumerError where Django's sessions are not set up.
    """
    _demand("session", "django.contrib.sessions")
    from django.conf import settings
    from django.http import parse_cookie

    key = parse_cookie(cookie).get(settings.SESSION_COOKIE_NAME)
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def user_of(session: Any) -> Any:
    """Return the user who is logged in, or an AnonymousUser. Raises ConsumerError where Django's auth is not set up."""
    _demand("user", "django.contrib.auth")
    from django.contrib.auth import get_user

    # Django does this for a hash that was made with a secret key of before; no response can carry the new cookie.
    session.cycle_key = lambda: None
    return get_user(SimpleNamespace(session=session))


def _demand(what: str, app: str) -> None:
    try:
        from django.apps import apps

        if apps.ready and apps.is_installed(app):
            return
    except ImportError:
        pass
    raise ConsumerError(
        f"message.{what} is Django's: it needs {app} among INSTALLED_APPS, DJANGO_SETTINGS_MODULE, and django.setup()"
        " or get_wsgi_application() in the module of TARGET"
    )

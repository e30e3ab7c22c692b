"""Django's URLconf, session and user; each in a process of its own, since Django is configured once in each."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from types import SimpleNamespace

import django
from django.conf import settings

OLD, NEW = "o" * 50, "n" * 50
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SECRET_KEY=OLD,
    SESSION_COOKIE_NAME="sid",
)
django.setup()
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.test import override_settings

from asgictl.app.django import session_of, user_of

call_command("migrate", verbosity=0)
ann = User.objects.create_user("ann", password="x")
request = SimpleNamespace(session=SessionStore(), META={}, user=None)
login(request, ann, "django.contrib.auth.backends.ModelBackend")
request.session["colour"] = "red"
request.session.save()
cookie = f"a=b; sid={request.session.session_key}"

assert user_of(session_of(cookie)) == ann
assert session_of(cookie)["colour"] == "red"
for strange in ("", "sid=", "sid=unknown", "sid=\\xff", "=;;"):
    assert user_of(session_of(strange)).is_anonymous, strange
    assert not session_of(strange).get("colour")

changed = session_of(cookie)
changed["colour"] = "blue"
assert session_of(cookie)["colour"] == "red", "nothing is saved unasked"
changed.save()
assert session_of(cookie)["colour"] == "blue"

with override_settings(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[OLD]):
    assert user_of(session_of(cookie)) == ann
    assert session_of(cookie)["colour"] == "blue", "the browser's cookie is still good"
with override_settings(SECRET_KEY=NEW):
    assert user_of(session_of(cookie)).is_anonymous
"""


def test_a_cookie_gives_the_session_and_its_user() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], check=True, timeout=60)


SITE = """
import sys
from django.conf import settings

settings.configure(SECRET_KEY="x", ROOT_URLCONF={urlconf!r})
{setup}
"""
SERVES = "from django.core.wsgi import get_wsgi_application\napp = get_wsgi_application()"
URLS = "from django.urls import include, path\nurlpatterns = [path('board/', include('board_urls'))]"
LOADED = """
import sys
from asgictl.app.target import load_target
from asgictl.errors import TargetError

try:
    load_target("site_of_test:app")
except TargetError as error:
    print(error)
print("loaded:", *sorted({"site_urls", "board_urls", "board_views"} & set(sys.modules)))
"""


def loaded(directory: Path, setup: str = SERVES, urlconf: str = "site_urls", views: str = "") -> str:
    """Load a site as TARGET in a process of its own; returns the error, and which of its modules were imported."""
    (directory / "site_of_test.py").write_text(SITE.format(setup=setup, urlconf=urlconf))
    (directory / "site_urls.py").write_text(URLS)
    (directory / "board_urls.py").write_text("import board_views\nfrom django.urls import path\nurlpatterns = []")
    (directory / "board_views.py").write_text(views)
    command = [sys.executable, "-W", "error", "-c", LOADED]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True, timeout=60).stdout


def test_target_comes_with_its_urlconf_and_views(tmp_path: Path) -> None:
    assert loaded(tmp_path) == "loaded: board_urls board_views site_urls\n"


@pytest.mark.parametrize(
    ("views", "last"),
    [
        ("import nonexistent_thing", "ModuleNotFoundError: No module named 'nonexistent_thing'"),
        ("raise SystemExit('theirs')", "SystemExit: theirs"),
        ("def view(:", "SyntaxError: invalid syntax"),
    ],
)
def test_views_that_cannot_be_imported_are_an_error_of_target(tmp_path: Path, views: str, last: str) -> None:
    first, begin, frame, *rest = loaded(tmp_path, views=views).splitlines()
    assert first == "TARGET 'site_of_test:app' cannot load Django's URLconf:"
    assert begin == "Traceback (most recent call last):"
    assert f'{tmp_path / "site_urls.py"}", line 2' in frame, "it begins with the user's own frame"
    assert rest[-2] == last


def test_a_urlconf_that_is_missing_or_empty_is_an_error_of_target(tmp_path: Path) -> None:
    assert "No module named 'site_url'" in loaded(tmp_path, urlconf="site_url")
    assert "The included URLconf 'board_views' does not appear to have" in loaded(tmp_path, urlconf="board_views")


@pytest.mark.parametrize(
    "setup",
    [
        "import django\ndjango.setup()\ndef app(environ, start_response): ...",  # for its ORM alone
        "def app(environ, start_response): ...",
        "import django.core.handlers.wsgi\ndef app(environ, start_response): ...",  # set up later, if ever
        SERVES.replace("app =", "del settings.ROOT_URLCONF\napp ="),
    ],
)
def test_what_serves_no_pages_of_django_needs_no_urlconf(tmp_path: Path, setup: str) -> None:
    assert loaded(tmp_path, setup, "missing_urls") == "loaded:\n"

"""Django's session and user by a cookie; in a process of its own, since Django is configured once in each."""

import subprocess
import sys

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

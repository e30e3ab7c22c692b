"""manage.py prepare: the database of `asgictl compare`."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand

from board.models import Note
from board.views import SHOWN

NAME = PASSWORD = "load"  # noqa: S105 (for load tests alone)


class Command(BaseCommand):
    help = "Migrates, and makes what the django scenarios of asgictl compare need: a user load, and notes."

    def handle(self, *_: Any, **__: Any) -> None:
        call_command("migrate", verbosity=0)
        user, made = get_user_model().objects.get_or_create(username=NAME)
        if made:
            user.set_password(PASSWORD)
            user.save()
        missing = SHOWN - Note.objects.count()
        Note.objects.bulk_create(Note(title=f"Note {number}", author=user) for number in range(missing))

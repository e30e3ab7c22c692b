"""What Django loads for "asgictl.django" in INSTALLED_APPS."""

import os

import django
from django.apps import AppConfig, apps
from django.core.checks import Tags, register


class AsgictlConfig(AppConfig):  # type: ignore[misc]  # Django is untyped
    """Register the system checks, and declare what every Application of this process serves besides its own."""

    name = "asgictl.django"
    label = "asgictl"

    def ready(self) -> None:
        from asgictl.django import DEVELOPMENT
        from asgictl.django.checks import check_connections, check_layers, check_settings

        register(check_settings)
        register(check_layers)
        register(check_connections, Tags.database)

        if django.VERSION >= (6,) or apps.is_installed("django_tasks"):
            from asgictl.django.tasks import declare_channels

            declare_channels()
        if os.environ.get(DEVELOPMENT):
            from asgictl.django.development import prepare

            prepare()

"""The Django app: `manage.py runasgictl`, system checks, and a backend of django.tasks. See docs/django.md."""

TARGET = "ASGICTL_DJANGO_TARGET"  # the variable that tells asgictl.django.development which TARGET it wraps

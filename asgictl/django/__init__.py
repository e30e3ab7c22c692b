"""The Django app: `manage.py runasgictl`, system checks, and a backend of django.tasks. See docs/django.md."""

DEVELOPMENT = "ASGICTL_DJANGO_DEVELOPMENT"  # the variable by which runasgictl asks for what development needs

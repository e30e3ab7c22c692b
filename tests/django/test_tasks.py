"""The backend of django.tasks: tasks_suite.py, where there is one."""

import importlib.util

import django
import pytest

from tests.django.suites import run_suite

IS_THERE = django.VERSION >= (6,) or importlib.util.find_spec("django_tasks") is not None


@pytest.mark.skipif(not IS_THERE, reason="NOT RUN: neither Django 6 nor django-tasks is installed")
def test_the_suite_of_the_backend() -> None:
    run_suite("tasks_suite.py")

"""The system checks, and what runasgictl serves: checks_suite.py."""

from tests.django.suites import run_suite


def test_the_suite_of_the_checks() -> None:
    run_suite("checks_suite.py")

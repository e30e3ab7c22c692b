"""What applications do to logging, and what is logged of them."""

import pytest

from tests.conftest import until
from tests.faults.conftest import Site, both_modes, exchange, handshake, head, logged, request, site_of, status_of

configured = site_of(
    """
    import logging.config

    from asgictl import Application, path

    logging.basicConfig(level=logging.DEBUG)
    logging.config.dictConfig({"version": 1})  # which disables every logger that there is


    def site(environ, start_response):
        if environ["PATH_INFO"] == "/fails":
            raise RuntimeError("surely wrong")
        logging.getLogger("mine").debug("a detail")
        logging.getLogger("mine").warning("a warning")
        start_response("200 OK", [])
        return [b"x"]


    async def asgi(scope, receive, send):
        raise RuntimeError("surely wrong")


    def fail(message):
        raise RuntimeError("surely wrong")


    app = Application(http={"/": site, "/asgi": asgi}, websocket=[path("/ws/fails", connect=fail)])
    """,
    *("--workers", "1"),
)
django = site_of(
    """
    import logging

    from django.conf import settings

    settings.configure(DEBUG=True, ROOT_URLCONF="app", ALLOWED_HOSTS=["*"], SECRET_KEY="x")

    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path


    def view(request):
        logging.getLogger("django.request").warning("once, please")
        return HttpResponse(b"x")


    urlpatterns = [path("", view)]
    app = get_wsgi_application()
""",
    *("--workers", "1"),
)


@pytest.mark.parametrize("path", [b"/fails", b"/asgi/fails", b"/ws/fails"])
@both_modes
def test_what_an_application_raises_is_logged_though_it_disables_loggers(
    configured: Site, mode: str, path: bytes
) -> None:
    """C1: dictConfig() without disable_existing_loggers=False."""
    machine = configured(mode)
    data = handshake(path) if path.startswith(b"/ws") else request(path)
    assert status_of(head(machine, data)) == 500

    def lines() -> int:
        return sum(f"{path.decode()} " in line and "ERROR" in line for line in logged(machine).splitlines())

    until(lambda: lines() == 1, "one line names it")


@both_modes
def test_basic_config_of_the_application_is_effective(configured: Site, mode: str) -> None:
    """C3."""
    machine = configured(mode)
    assert status_of(exchange(machine, request(b"/"))) == 200
    until(lambda: "a detail" in logged(machine), "it is logged")


@both_modes
def test_what_an_application_logs_is_logged(configured: Site, mode: str) -> None:
    """C3."""
    machine = configured(mode)
    assert status_of(exchange(machine, request(b"/"))) == 200
    until(lambda: "a warning" in logged(machine), "it is logged")


@both_modes
def test_a_record_of_django_in_debug_is_logged_once(django: Site, mode: str) -> None:
    """C2."""
    machine = django(mode)
    assert status_of(exchange(machine, request(b"/"))) == 200
    until(lambda: logged(machine).count("once, please") == 1, "it is logged once")


silent_django = site_of(
    """
    from django.conf import settings

    settings.configure(DEBUG=False, ROOT_URLCONF="app", ALLOWED_HOSTS=["*"], SECRET_KEY="x")

    from django.core.wsgi import get_wsgi_application
    from django.urls import path


    def view(request):
        raise RuntimeError("surely wrong")


    urlpatterns = [path("", view)]
    app = get_wsgi_application()
""",
    *("--workers", "1"),
)


@both_modes
def test_what_a_django_view_raises_is_logged_once_without_debug(silent_django: Site, mode: str) -> None:
    """C2: Django's own handler writes nothing then."""
    machine = silent_django(mode)
    assert status_of(exchange(machine, request(b"/"))) == 500
    until(lambda: logged(machine).count("RuntimeError: surely wrong") == 1, "it is logged once")

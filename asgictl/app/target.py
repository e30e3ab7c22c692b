"""Loads what TARGET names and says what kind of thing it is."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from asgictl.app.application import Application
from asgictl.app.boundary import keep_context
from asgictl.errors import TargetError

DEMO = "asgictl.demo:app"
PATCHERS = {"gevent.monkey": "is_module_patched", "eventlet.patcher": "is_monkey_patched"}
PATCHED = ("os", "queue", "select", "signal", "socket", "ssl", "subprocess", "thread", "threading", "time")


def load_target(spec: str) -> Application:
    """Import `module:attribute` and return it as an Application; the current directory is importable.

    Raises TargetError: for an exception in the user's module its text is their traceback, without our frames.
    """
    module_name, separator, attribute = spec.partition(":")
    if not separator or not module_name or not attribute:
        raise TargetError(f"TARGET {spec!r} is not of the form module:attribute, such as mysite.wsgi:application")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise TargetError(
                f"TARGET {spec!r}: there is no module {error.name!r} in {os.getcwd()} or among the installed packages"
            ) from None
        raise _import_failed(spec, error) from None
    except BaseException as error:  # noqa: BLE001 - a module may raise anything when it is imported
        raise _import_failed(spec, error) from None
    _refuse_patched(spec)
    keep_context()
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise TargetError(f"TARGET {spec!r}: module {module_name!r} has no attribute {attribute!r}")
        found = getattr(found, name)
    if isinstance(found, Application):
        for mounted in found.http.values():
            kind_of(mounted, spec)
        return found
    if isinstance(found, list | dict):
        from asgictl import channels1  # few have such a list

        return channels1.application(found)
    if kind_of(found, spec) == "WSGI":
        return Application(http=found)
    return Application(http=found, websocket=found)


def _refuse_patched(spec: str) -> None:
    """Raise TargetError where Python's modules have been replaced: our threads, sockets and loops would stand still."""
    for patcher, asked in PATCHERS.items():
        if patcher in sys.modules and any(map(getattr(sys.modules[patcher], asked), PATCHED)):
            name = patcher.partition(".")[0]
            raise TargetError(
                f"TARGET {spec!r}: {name} has monkey-patched this process, and asgictl's threads and event loops cannot"
                f" run on its locks and sockets: leave {name} out; use --threads, --workers or `async def` instead"
            )


def kind_of(target: Any, spec: str = "") -> str:
    """Return "WSGI" or "ASGI"; raises TargetError for what can be neither."""
    if isinstance(target, partial):
        return kind_of(target.func, spec)
    called = target if inspect.isroutine(target) or inspect.isclass(target) else getattr(target, "__call__", None)  # noqa: B004
    if called is None:
        raise TargetError(
            f"TARGET {spec!r} is {type(target).__name__}, neither an Application nor a WSGI or ASGI callable"
        )
    if inspect.iscoroutinefunction(called):
        return "ASGI"
    try:
        signature = inspect.signature(called)
    except ValueError:  # written in C: it says nothing about itself
        return "WSGI"
    for kind, arguments in (("WSGI", (None, None)), ("ASGI", (None,))):  # ASGI 2 is called with the scope alone
        with suppress(TypeError):
            signature.bind(*arguments)
            return kind
    raise TargetError(
        f"TARGET {spec!r} takes neither (environ, start_response) as WSGI has it, nor (scope, receive, send) as ASGI"
    )


def asgi3(target: Callable[..., Any]) -> Callable[..., Any]:
    """Return an ASGI 2 or 3 application as ASGI 3."""
    single: Callable[..., Any] = guarantee_single_callable(target)
    return single


def _import_failed(spec: str, error: BaseException) -> TargetError:
    return TargetError(f"TARGET {spec!r} cannot be imported:\n{_their_traceback(error)}")


def _their_traceback(error: BaseException) -> str:
    """Format an exception from the first frame that is neither ours nor importlib's."""
    frame: TracebackType | None = error.__traceback__
    while frame and (
        frame.tb_frame.f_code.co_filename.startswith("<frozen importlib")
        or frame.tb_frame.f_globals.get("__name__", "") in {__name__, "importlib"}
    ):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame, chain=False)).rstrip()

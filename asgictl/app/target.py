"""Loads TARGET and finds out its kind."""

import ast
import glob
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from asgiref.compatibility import double_to_single_callable

from asgictl.app.application import Application
from asgictl.app.boundary import keep_context
from asgictl.app.django import load_urlconf
from asgictl.errors import TargetError, suggestion

DEMO = "asgictl.demo:app"
EXAMPLES = "such as mysite.wsgi:application, app:create_app or app:create_app('production')"
USUAL = ("application", "app", "create_app", "make_app")
WSGI, ASGI, ASGI2 = 2, 3, 1  # how many arguments each is called with; ASGI 2 with the scope alone
PATCHERS = {"gevent.monkey": "is_module_patched", "eventlet.patcher": "is_monkey_patched"}
# Whose frames a traceback does not begin with: what imports the user's modules.
IMPORTERS = {__name__, "asgictl.app.django", "importlib", "django.urls.resolvers", "django.utils.functional"}
PATCHED = ("os", "queue", "select", "signal", "socket", "ssl", "subprocess", "thread", "threading", "time")


class Expression(NamedTuple):
    """The part of TARGET after the colon. name: dotted; arguments: of a call, None without one."""

    name: str
    arguments: tuple[list[Any], dict[Any, Any]] | None


def load_target(spec: str, app_dir: str = "") -> Application:
    """Import `module:attribute` and return it as an Application, called first if it is a factory.

    A factory is what can be called without arguments, or is: `module:create_app`, `module:create_app("production")`.
    app_dir: where modules are looked for first; by default the current directory.
    Raises TargetError: for an exception of the user's code its text is their traceback, without our frames.
    """
    module_name, _, rest = spec.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        raise TargetError(f"TARGET {spec!r} is a path; name the module: asgictl start {_named(module_name, rest)}")
    app_dir = os.path.abspath(app_dir)
    if not module_name or not rest:
        hint = f", {EXAMPLES}"
        with suppress(TargetError):  # whose turn comes once the form is right
            hint = _meant(_import(spec, module_name, app_dir), "")
        raise TargetError(f"TARGET {spec!r} is not of the form module:attribute{hint}")
    expression = _parse(spec, rest)
    module: Any = _import(spec, module_name, app_dir)
    found = module
    for name in expression.name.split("."):
        if not hasattr(found, name):
            missing = f"module {module_name!r} has no attribute {expression.name!r}"
            raise TargetError(f"TARGET {spec!r}: {missing}{_meant(module, expression.name)}")
        found = getattr(found, name)
    if expression.arguments or _argument_count(found) == 0:
        positional, keywords = expression.arguments or ([], {})
        try:
            found = found(*positional, **keywords)
        except BaseException as error:  # noqa: BLE001 - a factory may raise anything
            raise _failed(spec, "cannot be called", error) from None
    try:
        load_urlconf()
    except BaseException as error:  # noqa: BLE001 - a module may raise anything when it is imported
        raise _failed(spec, "cannot load Django's URLconf", error) from None
    _refuse_patched(spec)
    keep_context()
    return _application(found, spec)


def _application(found: Any, spec: str) -> Application:
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


def _parse(spec: str, text: str) -> Expression:
    """Parse a dotted name, called or not. Raises TargetError."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # as ast.parse documents
        raise TargetError(f"TARGET {spec!r} is not of the form module:attribute, {EXAMPLES}") from None
    arguments = None
    if isinstance(node, ast.Call):
        try:
            keywords = {each.arg: ast.literal_eval(each.value) for each in node.keywords}
            arguments = [ast.literal_eval(each) for each in node.args], keywords
        except ValueError:
            raise TargetError(f"TARGET {spec!r}: arguments must be literals, {EXAMPLES}") from None
        node = node.func
    name = ast.unparse(node)
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"TARGET {spec!r} is not of the form module:attribute, {EXAMPLES}")
    return Expression(name, arguments)


def _import(spec: str, name: str, app_dir: str) -> ModuleType:
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name + ".").startswith(error.name + "."):
            hint = _elsewhere(error.name, Path(app_dir))
            raise TargetError(
                f"TARGET {spec!r}: there is no module {error.name!r} in {app_dir} or among the installed packages{hint}"
            ) from None
        raise _failed(spec, "cannot be imported", error) from None
    except TargetError:  # of what it declares, as a malformed path()
        raise
    except BaseException as error:  # noqa: BLE001 - a module may raise anything when it is imported
        raise _failed(spec, "cannot be imported", error) from None


def _named(path: str, attribute: str) -> str:
    """Return a file as TARGET, with --app-dir where its package is not in the current directory."""
    file = Path(path).absolute()
    root = file.parent
    while (root / "__init__.py").exists():
        root = root.parent
    parts = file.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
    target = f"{module}:{attribute or USUAL[1]}"
    return target if root == Path.cwd() else f"{target} --app-dir {os.path.relpath(root)}"


def _elsewhere(module: str, app_dir: Path) -> str:
    """Return a hint for an error message if a module is one folder up or down."""
    name = glob.escape(module)
    for place in (app_dir.parent, *sorted(each for each in app_dir.glob("*") if each.is_dir())):
        if (place / f"{module}.py").is_file() or any(place.glob(f"{name}/*.py")):
            return f"; it is in {place}: give --app-dir {os.path.relpath(place)}"
    return ""


def _meant(module: ModuleType, name: str) -> str:
    """Return a hint for an error message: which attribute may have been meant."""
    own = [each for each, value in vars(module).items() if not _is_imported(value, module)]
    factories = [each for each in own if "app" in each and inspect.isfunction(vars(module)[each])]
    usual = [each for names in (own, vars(module)) for each in (*USUAL, *factories) if each in names]
    found = suggestion(name, own) or (usual and f"; did you mean {usual[0]}?") or suggestion(name, vars(module))
    return found.replace("mean ", f"mean {module.__name__}:") if found else f", {EXAMPLES}"


def _is_imported(value: Any, module: ModuleType) -> bool:
    """Whether a module has a class, a function or a module from elsewhere; of other values nobody can tell."""
    is_named = inspect.isclass(value) or inspect.isroutine(value)
    return inspect.ismodule(value) or (is_named and value.__module__ != module.__name__)


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
    """Return "WSGI" or "ASGI"; raises TargetError if the object is neither."""
    count = _argument_count(target)
    if count is None:
        raise TargetError(
            f"TARGET {spec!r} is {type(target).__name__}, neither an Application nor a WSGI or ASGI callable"
        )
    if count == 0:
        raise TargetError(f"TARGET {spec!r} holds or returns a factory of WSGI or ASGI callables, {target!r}: call it")
    if count < 0:
        raise TargetError(
            f"TARGET {spec!r} takes neither (environ, start_response) as WSGI has it, nor (scope, receive, send) as"
            f" ASGI; a factory is called as in {EXAMPLES}"
        )
    if inspect.isclass(target) and _instances_serve(target):
        raise TargetError(f"TARGET {spec!r} is the class {target.__name__}; did you mean an instance of it?")
    return "WSGI" if count == WSGI else "ASGI"


def _instances_serve(target: type) -> bool:
    """Whether it is the instances of a class that are applications, as Flask's, and not the class, as in ASGI 2."""
    call = next((vars(each)["__call__"] for each in target.__mro__ if "__call__" in vars(each)), None)
    names = [*inspect.signature(call).parameters][1:] if inspect.isfunction(call) else []
    return names[:2] == ["environ", "start_response"] or names[:3] == ["scope", "receive", "send"]


def _argument_count(target: Any) -> int | None:
    """Return with how many positional arguments a target is called: WSGI, ASGI, ASGI2, or 0 for a factory.

    -1: with others. None: it is not callable.
    """
    is_itself = inspect.isroutine(target) or inspect.isclass(target) or isinstance(target, partial)
    called: Any = target if is_itself else getattr(target, "__call__", None)  # noqa: B004
    if called is None:
        return None
    is_async = inspect.iscoroutinefunction(called)
    try:
        signature = inspect.signature(called)
    except ValueError:  # written in C: it says nothing about itself
        return ASGI if is_async else WSGI
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
    counts = (ASGI,) if is_async else (WSGI, ASGI, ASGI2) if takes_any else (0, WSGI, ASGI, ASGI2)
    for count in counts:
        with suppress(TypeError):
            signature.bind(*[None] * count)
            return count
    return -1


def asgi_mounts(application: Application) -> dict[str, bool]:
    """Return which HTTP paths ASGI applications serve (see Manifest.mounts)."""
    mounts = {prefix: kind_of(mounted) == "ASGI" for prefix, mounted in application.http.items()}
    return mounts if any(mounts.values()) else {}


def asgi3(target: Callable[..., Any]) -> Callable[..., Any]:
    """Return an ASGI 2 or 3 application as ASGI 3."""
    if _argument_count(target) != ASGI2:
        return target
    single: Callable[..., Any] = double_to_single_callable(target)
    return single


def _failed(spec: str, what: str, error: BaseException) -> TargetError:
    return TargetError(f"TARGET {spec!r} {what}:\n{_their_traceback(error)}")


def _their_traceback(error: BaseException) -> str:
    """Format an exception from the first frame that is not of IMPORTERS."""
    frame: TracebackType | None = error.__traceback__
    while frame and (
        frame.tb_frame.f_code.co_filename.startswith("<frozen importlib")
        or frame.tb_frame.f_globals.get("__name__", "") in IMPORTERS
    ):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame, chain=False)).rstrip()

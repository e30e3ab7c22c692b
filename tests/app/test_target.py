"""Loading what TARGET names."""

import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asgictl.app import boundary
from asgictl.app.application import Application
from asgictl.app.target import DEMO, asgi3, kind_of, load_target
from asgictl.errors import TargetError

numbers = count()
Write = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module into the current directory, under a name that no other test has; returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"users_module_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def test_a_wsgi_callable_becomes_an_application(module: Write) -> None:
    application = load_target(module("def app(environ, start_response): ...") + ":app")
    assert list(application.http) == ["/"]
    assert application.routes == ()


def test_an_asgi_callable_serves_websockets_too(module: Write) -> None:
    application = load_target(module("async def app(scope, receive, send): ...") + ":app")
    assert application.websocket is application.http["/"]


def test_a_routing_list_of_channels_1_becomes_an_application(module: Write) -> None:
    source = "from asgictl.channels1 import route\nrouting = [route('websocket.receive', print), route('jobs', print)]"
    application = load_target(module(source) + ":routing")
    assert set(application.background) == {"jobs"}
    with pytest.raises(TargetError, match="holds route"):
        load_target(module("routing = [3]") + ":routing")


FACTORY = """
from asgictl import Application
def make(name="x", *, debug=False):
    def app(environ, start_response): ...
    app.told = name, debug
    return app
class Site:
    def __call__(self, environ, start_response): ...
    make = staticmethod(make)
def whole(): return Application(websocket=[])
def plain(): return {}
async def slow(): ...
def twice(): return make
def needs(settings, other, third, fourth): return make()
def breaks(): raise ValueError("theirs")
"""


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("make", ("x", False)),
        ("make()", ("x", False)),
        ("Site.make", ("x", False)),
        (" make( 'y', debug = True ) ", ("y", True)),
        ("Site.make({'a': [1]})", ({"a": [1]}, False)),
        ("needs(1, 2, 3, fourth=4)", ("x", False)),
    ],
)
def test_a_factory_is_called(module: Write, expression: str, told: tuple[object, bool]) -> None:
    application = load_target(f"{module(FACTORY)}:{expression}")
    assert application.http["/"].told == told  # type: ignore[attr-defined]


@pytest.mark.parametrize("expression", ["Site", "Site()", "whole", "plain()"])
def test_a_factory_may_return_all_that_target_may_name(module: Write, expression: str) -> None:
    assert isinstance(load_target(f"{module(FACTORY)}:{expression}"), Application)


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("needs", "a factory is called as in"),
        ("needs()", "missing 4 required positional arguments"),
        ("make(1, 2)", "takes from 0 to 1 positional argument"),
        ("make(name)", "arguments must be literals"),
        ("make(*[1])", "arguments must be literals"),
        ("make(**{'name': 1})", "keywords must be strings"),
        ("make()()", "not of the form"),
        ("make() + 1", "not of the form"),
        ("make(", "not of the form"),
        ("make\0", "not of the form"),
        ("breaks", "ValueError: theirs"),
        ("twice", "a factory of WSGI or ASGI callables"),
        ("slow", "neither"),
        ("__name__()", "'str' object is not callable"),
    ],
)
def test_what_cannot_be_called_so_is_refused(module: Write, expression: str, shown: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_target(f"{module(FACTORY)}:{expression}")
    assert shown in str(caught.value)
    assert "target.py" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("./site_of_hints.py", "asgictl start site_of_hints:app"),
        ("site_of_hints.py:make", "asgictl start site_of_hints:make"),
        ("./src/package/__init__.py", "asgictl start package:app --app-dir src"),
        ("./__init__.py:make", "asgictl start __init__:make"),
        ("./src/package/part.py", "asgictl start package.part:app --app-dir src"),
        ("site_of_hints", "did you mean site_of_hints:create_app?"),
        ("site_of_hints:", "did you mean site_of_hints:create_app?"),
        ("site_of_hints:app", "did you mean site_of_hints:create_app?"),
        ("site_of_hints:wsgi_ap", "did you mean site_of_hints:wsgi_app?"),
        ("site_of_hints:created_app", "did you mean site_of_hints:create_app?"),
        ("site_of_hints:PurePat", "did you mean site_of_hints:create_app?"),
        ("package.part:app", "it is in SRC: give --app-dir src"),
        ("above_hints:app", "it is in ABOVE: give --app-dir .."),
    ],
)
def test_a_mistake_is_shown_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, meant: str
) -> None:
    here = tmp_path / "here"
    (here / "src" / "package").mkdir(parents=True)
    (tmp_path / "above_hints.py").touch()
    (here / "site_of_hints.py").write_text(
        "from pathlib import PurePath, Path as created_apps\ndef create_app(): ...\nwsgi_app = 1"
    )
    (here / "src" / "package" / "__init__.py").touch()
    (here / "src" / "package" / "part.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(TargetError) as caught:
        load_target(target)
    sys.modules.pop("site_of_hints", None)
    assert meant.replace("SRC", str(here / "src")).replace("ABOVE", str(tmp_path)) in str(caught.value)


def test_a_factory_of_the_module_s_own_is_meant_before_one_that_it_imports(module: Write) -> None:
    """As where one module makes the Flask application, and another makes asgictl's of it."""
    source = "from inspect import stack as create_app\nfrom functools import partial\ncurrent_app = partial(print)"
    name = module(f"{source}\ndef create_application(): ...")
    for target in (f"{name}:app", name, f"{name}:nope"):
        with pytest.raises(TargetError, match=f"did you mean {name}:create_application"):
            load_target(target)


def test_modules_are_looked_for_in_app_dir_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "only_in_app_dir.py").write_text("def app(environ, start_response): ...")
    assert load_target("only_in_app_dir:app", "src").http


def test_the_demo_is_an_application() -> None:
    assert isinstance(load_target(DEMO), Application)


def test_an_attribute_may_be_dotted(module: Write) -> None:
    source = "class site:\n  @staticmethod\n  def app(environ, start_response): ..."
    assert load_target(module(source) + ":site.app").http


@pytest.mark.parametrize("spec", ["module", "module:", ":app", ""])
def test_a_target_of_another_form_is_shown_the_form(spec: str) -> None:
    with pytest.raises(TargetError, match="module:attribute"):
        load_target(spec)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(TargetError, match=r"there is no module 'absent_package'"):
        load_target("absent_package.sub:app")


def test_a_missing_attribute_is_named(module: Write) -> None:
    with pytest.raises(TargetError, match=r"has no attribute 'ap'"):
        load_target(module("app = 1") + ":ap")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("raise ValueError('theirs')", "ValueError: theirs"),
        ("import absent_dependency", "No module named 'absent_dependency'"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt('theirs')", "KeyboardInterrupt: theirs"),
        ("raise GeneratorExit('theirs')", "GeneratorExit: theirs"),
        ("import asyncio\nraise asyncio.CancelledError('theirs')", "CancelledError: theirs"),
        ("raise BaseException('theirs')", "BaseException: theirs"),
        ("def app(:", "SyntaxError"),
    ],
)
def test_an_exception_in_the_users_module_is_shown_as_their_traceback(module: Write, source: str, shown: str) -> None:
    name = module(source)
    with pytest.raises(TargetError) as caught:
        load_target(f"{name}:app")
    text = str(caught.value)
    assert shown in text
    assert f"{name}.py" in text
    assert "importlib" not in text
    assert "target.py" not in text


@pytest.mark.parametrize("source", ["app = 'text'", "def app(a, b, c, d): ...", "def app(): ..."])
def test_what_is_neither_wsgi_nor_asgi_is_refused(module: Write, source: str) -> None:
    with pytest.raises(TargetError, match=r"WSGI"):
        load_target(module(source) + ":app")


@pytest.mark.parametrize(
    ("patcher", "asked"), [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")]
)
@pytest.mark.parametrize("patched", ["socket", "thread", ""])
def test_a_process_that_a_library_has_monkey_patched_is_refused(
    module: Write, monkeypatch: pytest.MonkeyPatch, patcher: str, asked: str, patched: str
) -> None:
    monkeypatch.setitem(sys.modules, patcher, SimpleNamespace(**{asked: patched.__eq__}))
    target = module("def app(environ, start_response): ...") + ":app"
    if not patched:  # it was only imported
        load_target(target)
        return
    with pytest.raises(TargetError, match=f"{patcher.partition('.')[0]} has monkey-patched this process"):
        load_target(target)


def test_what_the_module_sets_is_seen_by_events(module: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "_imported", boundary.fresh_context())  # restored after the test
    source = "from contextvars import ContextVar\nseen = ContextVar('seen')\nseen.set(1)\ndef app(_, __): return seen"
    seen = load_target(module(source) + ":app").http["/"]({}, None)
    assert boundary.fresh_context().run(seen.get) == 1


def test_a_mount_that_is_neither_is_refused(module: Write) -> None:
    source = "from asgictl.app.application import Application\napp = Application(http={'/': lambda: None})"
    with pytest.raises(TargetError, match="WSGI"):
        load_target(module(source) + ":app")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from flask import Flask as app", "Flask"),
        ("from django.core.handlers.wsgi import WSGIHandler as app", "WSGIHandler"),
        ("class app:\n  def __init__(self, inner): ...\n  async def __call__(self, scope, receive, send): ...", "app"),
    ],
)
def test_a_class_whose_instances_are_applications_is_refused(module: Write, source: str, name: str) -> None:
    with pytest.raises(TargetError, match=f"is the class {name}; did you mean an instance of it"):
        load_target(module(source) + ":app")


class IteratedWSGI:
    """PEP 3333's second example: the class is the application."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """ASGI 3."""


class OldASGI:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class ASGIObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WSGIObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


def late(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


class LateObject:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return asgi(scope, receive, send)


def with_settings(settings: str, environ: Any, start_response: Any) -> list[bytes]:
    return []


@pytest.mark.parametrize("target", [partial(with_settings, "production"), partial(WSGIObject())])
def test_what_a_partial_still_wants_counts(target: Any) -> None:
    assert kind_of(target) == "WSGI"


@pytest.mark.parametrize(
    "target", [wsgi, WSGIObject(), WSGIObject().__call__, lambda *arguments: [], partial(wsgi), IteratedWSGI]
)
def test_wsgi_is_recognized(target: Any) -> None:
    assert kind_of(target) == "WSGI"


@pytest.mark.parametrize(
    "target",
    [asgi, OldASGI, ASGIObject(), ASGIObject().__call__, partial(asgi), partial(ASGIObject()), late, LateObject()],
)
def test_asgi_is_recognized(target: Any) -> None:
    assert kind_of(target) == "ASGI"


def test_asgi_2_is_called_as_asgi_3() -> None:
    assert kind_of(asgi3(OldASGI)) == "ASGI"


@pytest.mark.parametrize("target", [asgi, late, LateObject(), partial(late), partial(ASGIObject())])
def test_asgi_3_is_called_as_it_is(target: Any) -> None:
    assert asgi3(target) is target


def test_a_mistake_in_what_a_module_declares_is_told_without_a_traceback(module: Write) -> None:
    name = module("from asgictl import Application, path\napp = Application(websocket=[path('chat')])")
    with pytest.raises(TargetError, match=r"^path\('chat'\): a path must start with /$"):
        load_target(f"{name}:app")

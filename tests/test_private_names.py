"""Private and undocumented names of other packages that the product uses: a release that drops one fails here.

Two kinds are found in the source: what a class takes from a base of another package, and private attributes of anything
else. The third, undocumented names that look public, only a reader finds: UNDOCUMENTED.
"""

import ast
import asyncio
import importlib
import inspect
import os
import pkgutil
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import anyio._backends._asyncio
import pytest
from anyio._backends._asyncio import WorkerThread

import asgictl

SOURCE = Path(asgictl.__file__).parent
# Each private attribute of something that is not an object of ours, and where it is.
PRIVATE: dict[str, Any] = {
    "_current_frames": sys,
    "_exit": os,
    "_get_connection": "supervisor.xmlrpc.SupervisorTransport",
    "_get_running_loop": asyncio,
    "_getframe": sys,
    "_sock": "redis.connection.Connection redis.connection.UnixDomainSocketConnection",
    "_writer": "redis.asyncio.connection.AbstractConnection",
}
DOCUMENTED = {"_asdict", "_replace"}  # of named tuples
# Methods and settings of other packages' classes that ours replace: without them nothing would call ours.
REPLACED = {
    "ChannelLayer": "group_add group_discard group_send new_channel receive send",
    "Command": "format_options parse_args",
    "Commands": "invoke",
    "Connection": "connect",
    "Admin": "collect",
    "Gunicorn": "load_config load_config_from_module_name_or_filename",
    "Hosted": "capture_signals",
    "IPv6Socket": "create_and_bind",
    "InMemoryChannelLayer": "flush",
    "LastingLoop": "run_until_complete",
    "Number": "convert",
    "Whole": "get_metavar",
    "NotingArbiter": "reap_workers",
    "Options": "fork parse_fcgi_socket waitpid",
    "RedisChannelLayer": "flush new_channel receive",
    "ServerLogger": "setup",
    "Span": "convert",
    "ServerWorker": "CONFIG_KWARGS _serve callback_notify init_process",
    "Words": "split_envvar_value",
    "EdgeServer": "handle_exit shutdown startup",
    "Server": "handle_exit main_loop",
}
UNDOCUMENTED = {
    "daphne.server.Server": "connections endpoints http_factory stop ws_factory",
    "daphne.ws_protocol.WebSocketProtocol": "STATE_OPEN failByDrop handle_reply sendCloseFrame state",
    "gunicorn.config.Config": "get_cmd_args_from_env parser",
    "redis.asyncio.connection.AbstractConnection": "connect disconnect",
    "redis.connection.Connection": "connect disconnect on_connect",
    "redis.connection.UnixDomainSocketConnection": "connect disconnect on_connect",
    "supervisor.loggers.Handler": "close closed handleError",
    "supervisor.loggers.RotatingFileHandler": "baseFilename doRollover",
    "supervisor.xmlrpc.UnixStreamHTTPConnection": "socketfile",
    "websockets.server.ServerProtocol": "close_rcvd close_sent extensions parser_exc",
}
UNDOCUMENTED_MODULES = {
    "asgiref.compatibility": "guarantee_single_callable",
    "daphne.server": "twisted_loop",
    "hypercorn.utils": "LifespanFailureError LifespanTimeoutError",
    "prometheus_client.exposition": "CONTENT_TYPE_PLAIN_0_0_4",
    "supervisor.supervisord": "ServerOptions main",
    "supervisor.xmlrpc": "Faults",
    "uvicorn.main": "main",
    "websockets.speedups": "apply_mask",
    "concurrent.futures.thread": "_worker",
}


@cache
def trees() -> list[ast.Module]:
    """Return the source of the product, but for what drives locust."""
    paths = [Path(folder) / name for folder, _, names in os.walk(SOURCE, followlinks=True) for name in names]
    return [ast.parse(path.read_text()) for path in paths if path.suffix == ".py" and "loadtests" not in path.parts]


def found(name: str) -> Any:
    """Return the class that a dotted name means."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@cache
def mentioned(made: type) -> set[str]:
    """Return the attributes of its objects that a class's own methods name."""
    try:
        return _attributes(ast.parse(textwrap.dedent(inspect.getsource(made))), "self")
    except (OSError, TypeError):  # written in C
        return set()


def _attributes(tree: ast.AST, *of: str, store: bool = False) -> set[str]:
    """Return the attributes of variables of these names, or of super(); store: only those that are set."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _variable(node) in of and (isinstance(node.ctx, ast.Store) or not store):
            found.add(node.attr)
    return found


def _variable(node: ast.Attribute) -> str:
    value = node.value.func if isinstance(node.value, ast.Call) else node.value
    return value.id if isinstance(value, ast.Name) else ""


def has(made: Any, name: str) -> bool:
    """Whether a module has an attribute; or a class, or what it makes."""
    return hasattr(made, name) or (isinstance(made, type) and any(name in mentioned(each) for each in made.__mro__))


def is_ours(made: type) -> bool:
    return made.__module__.split(".")[0] == "asgictl"


@cache
def derived() -> list[type]:
    """Return our classes with a base of another package."""
    modules = pkgutil.walk_packages(asgictl.__path__, "asgictl.")
    left_out = (".loadtests", "__main__", "asgictl.django.")  # the last wants Django's settings; tests/django runs it
    names = [name for _, name, _ in modules if not any(part in name for part in left_out)]
    classes = {made for name in names for made in vars(importlib.import_module(name)).values() if inspect.isclass(made)}
    return sorted((made for made in classes if is_ours(made) and foreign(made)), key=lambda made: made.__qualname__)


def foreign(made: type) -> list[type]:
    """Return a class's bases of other packages."""
    known = sys.stdlib_module_names | {"asgictl", "msgspec"}
    return [each for each in made.__mro__ if each.__module__.split(".")[0] not in known]


def inherited(made: type) -> set[str]:
    """Return what a class's methods use of their own object that no class of ours has made."""
    ours = [each for each in made.__mro__ if is_ours(each)]
    own = {name for each in ours for name in vars(each)}
    for first in [vars(each)["__init__"] for each in ours if "__init__" in vars(each)]:
        own |= _attributes(ast.parse(textwrap.dedent(inspect.getsource(first))), "self", store=True)
    tree = ast.parse(textwrap.dedent(inspect.getsource(made)))
    return (_attributes(tree, "self") - own) | _attributes(tree, "super")


def test_bases_of_other_packages_have_what_our_classes_use() -> None:
    missing = {
        f"{made.__name__}.{name}"
        for made in derived()
        for name in inherited(made)
        if not any(has(each, name) for each in made.__mro__[1:])
    }
    assert not missing


def test_bases_of_other_packages_have_what_our_classes_replace() -> None:
    replaced = {}
    for made in derived():
        bases = foreign(made)
        methods = [name for name, value in vars(made).items() if callable(value) or isinstance(value, property)]
        names = [name for name in methods if name[:2] != "__" and any(hasattr(each, name) for each in bases)]
        if names:
            replaced[made.__name__] = " ".join(sorted(names))
    assert replaced == REPLACED


def test_every_private_attribute_of_another_package_is_listed_and_is_there() -> None:
    accessed = {
        node.attr
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and _variable(node) not in {"self", "cls", "super"}
        if node.attr.startswith("_") and not node.attr.startswith("__")
    }
    assert accessed - DOCUMENTED == set(PRIVATE)
    for name, places in PRIVATE.items():
        for place in map(found, places.split()) if isinstance(places, str) else [places]:
            assert has(place, name), f"{place} has no {name}"


@pytest.mark.parametrize("name", UNDOCUMENTED)
def test_a_class_has_its_undocumented_names(name: str) -> None:
    assert [each for each in UNDOCUMENTED[name].split() if not has(found(name), each)] == []


@pytest.mark.parametrize("name", UNDOCUMENTED_MODULES)
def test_a_module_has_its_undocumented_names(name: str) -> None:
    module = importlib.import_module(name)
    assert [each for each in UNDOCUMENTED_MODULES[name].split() if not hasattr(module, each)] == []


def test_a_thread_of_anyio_is_recognized() -> None:
    """forks looks for the frame of its run()."""
    assert (anyio._backends._asyncio.__name__, WorkerThread.run.__qualname__) == (
        "anyio._backends._asyncio",
        "WorkerThread.run",
    )
    assert has(WorkerThread, "queue")

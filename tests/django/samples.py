"""Tasks of the suite."""

import sys
from importlib import import_module
from typing import Any

import django

tasks: Any = import_module("django.tasks" if django.VERSION >= (6,) else "django_tasks")
task: Any = tasks.task


class Unspeakable(Exception):
    """Its text is none."""

    def __str__(self) -> str:
        raise ValueError("no text")


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return {"args": args, "kwargs": kwargs}


@task
async def add_later(a: int, b: int) -> int:
    return a + b


@task
def fail(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    if kind == "long":
        raise ValueError("x" * 500_000 + "the end")
    if kind == "surrogate":
        raise ValueError("\ud800")
    raise {"value": ValueError("theirs"), "interrupt": KeyboardInterrupt(), "unspeakable": Unspeakable()}[kind]


@task
def return_value(kind: str) -> Any:
    return {"set": {1}, "large": "x" * (2 << 20), "int": 1 << 70, "tuple": (1, 2)}[kind]


@task(takes_context=True)
def tell(context: Any, *more: int) -> list[Any]:
    return [context.attempt, context.task_result.id, context.task_result.status, *more]


@task
def enqueue_and_fail() -> None:
    add.enqueue(0)
    raise ValueError("theirs")

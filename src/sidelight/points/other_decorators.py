"""Decorators of other libraries under ``@emits``: context managers, and objects of frameworks.

`contextlib.contextmanager` makes a function that returns before the body has run. There the body is
instrumented instead. A framework that has been handed the bare function never calls a wrapper
above. Where its decorator returns an object of its own class, that object is recognized and
refused. A decorator that returns the function unchanged (a route of FastAPI, for example) cannot be
recognized; `maps.static.registrars` finds those in the source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Final

_HANDLES: Final = {
    "_pytest.fixtures:FixtureFunctionDefinition": "a fixture of pytest",
    "airflow.decorators.base:_TaskDecorator": "a task of Airflow",
    "celery.app.task:Task": "a task of Celery",
    "celery.local:Proxy": "a task of Celery",
    "click.core:BaseCommand": "a command of click",
    "click.core:Command": "a command of click",
    "discord.ext.commands.core:Command": "a command of discord.py",
    "dramatiq.actor:Actor": "an actor of Dramatiq",
    "huey.api:TaskWrapper": "a task of Huey",
    "invoke.tasks:Task": "a task of Invoke",
    "prefect.flows:Flow": "a flow of Prefect",
    "prefect.tasks:Task": "a task of Prefect",
    "procrastinate.tasks:Task": "a task of Procrastinate",
    "pydantic._internal._decorators:PydanticDescriptorProxy": "a validator of pydantic",
    "ray.remote_function:RemoteFunction": "a remote function of Ray",
}
"""Classes whose objects hold the bare function, and call it past every wrapper above."""


_example: Any = lambda: None  # noqa: E731  # the decorators of contextlib only wrap it
_CONTEXT_MANAGERS: Final[dict[CodeType, Callable[..., Any]]] = {
    contextlib.contextmanager(_example).__code__: contextlib.contextmanager,
    contextlib.asynccontextmanager(_example).__code__: contextlib.asynccontextmanager,
}


def context_manager_maker(function: Any) -> Callable[[Any], Any] | None:
    """Return the decorator of contextlib that made ``function``; None where it was another."""
    if type(function) is not FunctionType or not hasattr(function, "__wrapped__"):
        return None
    return _CONTEXT_MANAGERS.get(function.__code__)


def hides_context_manager(function: Any) -> bool:
    """Return whether another decorator stands around a function that `contextlib` made."""
    seen: set[int] = set()
    while (function := getattr(function, "__wrapped__", None)) is not None:
        if id(function) in seen:  # a chain that leads back to itself
            return False
        seen.add(id(function))
        if context_manager_maker(function) is not None:
            return True
    return False


def framework_handle(function: Any) -> str | None:
    """Return the kind of a framework's object that calls the bare function; None for others."""
    for kind in type(function).__mro__:
        handle = _HANDLES.get(f"{kind.__module__}:{kind.__name__}")
        if handle is not None:
            return handle
    if "_pytestfixturefunction" in getattr(function, "__dict__", ()):  # pytest before 8.4
        return "a fixture of pytest"
    return None

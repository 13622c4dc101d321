"""Decorators that hand the bare function to a framework: routes, commands, tasks, fixtures.

The framework calls the function that its decorator has seen. A wrapper that is put on later, by a
decorator above or by a map, is never called. sidelight cannot see this when the program runs,
because many of these decorators return the function unchanged.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Final

from sidelight.maps.listing import Registrar
from sidelight.maps.static.names import (
    Assignment,
    Codebase,
    Definition,
    Function,
    Scope,
    Sidelight,
    Target,
)

_FUNCTIONS: Final = frozenset(
    {
        *("atexit:register", "celery:shared_task", "click:command", "click:group"),
        *("django.dispatch:receiver", "dramatiq:actor", "invoke:task"),
        *("pytest:fixture", "pytest_asyncio:fixture", "rich_click:command", "rich_click:group"),
        "sqlalchemy.event:listens_for",
    }
)
_GROUPS: Final = frozenset({"click:group", "rich_click:group"})
_DISPATCHERS: Final = frozenset({"functools:singledispatch", "functools:singledispatchmethod"})
#: Classes whose methods are registrars: ``app = FastAPI()``, then ``@app.get("/")``.
_CLASSES: Final = frozenset(
    {
        *("aiohttp.web:RouteTableDef", "apscheduler.schedulers.background:BackgroundScheduler"),
        *("apscheduler.schedulers.asyncio:AsyncIOScheduler", "blinker:Signal", "bottle:Bottle"),
        *("celery:Celery", "click:Group", "cyclopts:App", "django.template:Library"),
        *(
            "fastapi:APIRouter",
            "fastapi:FastAPI",
            "fastmcp:FastMCP",
            "faust:App",
            "flask:Blueprint",
        ),
        *("flask:Flask", "huey:RedisHuey", "huey:SqliteHuey", "mcp.server.fastmcp:FastMCP"),
        *("procrastinate:App", "quart:Blueprint", "quart:Quart", "sanic:Blueprint", "sanic:Sanic"),
        *("starlette.applications:Starlette", "typer:Typer"),
    }
)
_TRANSPARENT: Final = frozenset(
    {
        *("abc:abstractmethod", "builtins:classmethod", "builtins:staticmethod"),
        *("contextlib:asynccontextmanager", "contextlib:contextmanager", "functools:cache"),
        *("functools:lru_cache", "functools:singledispatch", "functools:wraps"),
        *("typing:final", "typing:no_type_check", "typing:overload", "typing:override"),
    }
)
_KEEP_PARAMETERS: Final = frozenset({"wraps", "update_wrapper", "decorator"})
#: Methods that are probably registrars, where the class of their object is not known.
_METHODS: Final = frozenset(
    {
        *("after_request", "before_request", "callback", "command", "delete", "errorhandler"),
        *("exception_handler", "get", "listens_for", "middleware", "on_event", "patch", "post"),
        *("put", "register", "route", "task", "websocket"),
    }
)


def registrars_on(
    code: Codebase, decorators: Sequence[ast.expr], scope: Scope
) -> list[Registrar | None]:
    """Return the registrar that each decorator is; None for every other decorator."""
    return [_registrar(code, each, scope) for each in decorators]


def _registrar(code: Codebase, decorator: ast.expr, scope: Scope) -> Registrar | None:
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    source = f"@{ast.unparse(decorator)}"
    if _path(code.resolve(node, scope)) in _FUNCTIONS:
        return Registrar(source, certain=True)
    if not isinstance(node, ast.Attribute):
        return None
    owner = code.resolve(node.value, scope)
    if isinstance(owner, Assignment) and isinstance(owner.value, ast.Call):
        if _path(code.resolve(owner.value.func, owner.scope)) in _CLASSES:
            return Registrar(source, certain=True)
    elif isinstance(owner, Definition):
        kinds = _kinds(code, owner)
        if node.attr == "register" and kinds & _DISPATCHERS:
            return Registrar(source, certain=True)
        if node.attr in {"command", "group"} and kinds & _GROUPS:
            return Registrar(source, certain=True)
    return Registrar(source, certain=False) if node.attr in _METHODS else None


def _kinds(code: Codebase, function: Definition) -> set[str]:
    """Return the paths of the decorators of a function.

    A subgroup of a click group is a group as well.
    """
    paths = set()
    for decorator in function.node.decorator_list:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        path = _path(code.resolve(node, function.scope))
        if path is None and isinstance(node, ast.Attribute) and node.attr == "group":
            outer = code.resolve(node.value, function.scope)
            if isinstance(outer, Definition) and outer.node is not function.node:
                paths |= _kinds(code, outer) & _GROUPS
        paths.add(path or "")
    return paths


def has_decorator(node: Function, *names: str) -> bool:
    """Return whether a function has a decorator of one of these names, from any library."""
    return any(
        getattr(each, "attr", getattr(each, "id", "")) in names for each in node.decorator_list
    )


def unknown_decorator(code: Codebase, node: Function, scope: Scope) -> str:
    """Return a decorator that may change the function's parameters, as source.

    Return "" where there is none.

    A decorator that calls `functools.wraps` or the like keeps them.
    """
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        target = code.resolve(called, scope, anywhere=True)
        if isinstance(target, Sidelight) or _path(target) in _TRANSPARENT:
            continue
        if isinstance(target, Definition) and _mentions_wraps(target.node):
            continue
        return f"@{ast.unparse(decorator)}"
    return ""


def _mentions_wraps(node: ast.AST) -> bool:
    names = (getattr(each, "attr", getattr(each, "id", None)) for each in ast.walk(node))
    return not _KEEP_PARAMETERS.isdisjoint(names)


def _path(target: Target | None) -> str | None:
    return getattr(target, "path", None)

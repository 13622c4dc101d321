"""Private names: a path has them as the source spells them, ``Desk.__book``.

Python stores such a method as the attribute ``_Desk__book``. A map may name either spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from sidelight.record import alike


def mangled(name: str, class_name: str) -> str:
    """Return the name that Python gives to a name in the body of a class.

    Args:
        name: as the source spells it.
        class_name: the innermost class around it; "" where there is none.
    """
    prefix = class_name.lstrip("_")
    return f"_{prefix}{name}" if prefix and _is_private(name) else name


def source_name(name: str, class_name: str) -> str:
    """Return the name that the source of a class has for an attribute: `mangled` the other way."""
    rest = name.removeprefix(f"_{class_name.lstrip('_')}")
    return rest if mangled(rest, class_name) == name else name


def source_path(path: str) -> str:
    """Return ``shop:Desk.__book`` for ``shop:Desk._Desk__book``; other paths stay as they are."""
    module, colon, qualname = path.partition(":")
    names: list[str] = []
    for name in qualname.split("."):
        names.append(source_name(name, names[-1]) if names else name)
    return f"{module}{colon}{'.'.join(names)}"


def as_expression(qualname: str) -> str:
    """Return the spelling that code outside of the class uses: ``Desk._Desk__book``."""
    around, written = "", []
    for name in qualname.split("."):
        written.append(mangled(name, around))
        around = source_name(name, around)
    return ".".join(written)


def attribute(owner: Any, name: str) -> str:
    """Return the name under which an object has what a path calls ``name``."""
    if isinstance(owner, type) and hasattr(owner, private := mangled(name, owner.__name__)):
        return private
    return name


def resolved(path: str) -> Any:
    """Import what ``package.module:Class.method`` names.

    Raises:
        ImportError, AttributeError, ValueError: it is not there.
    """
    module, _, qualname = path.partition(":")
    found: Any = import_module(module)
    for name in qualname.split("."):
        found = getattr(found, attribute(found, name))
    return found


def nearest(name: str, known: Iterable[str], class_name: str) -> str:
    """Return the attributes that a missing one may mean, as a path spells them; "" for none.

    Args:
        name: the missing one, as a path has it.
        known: the attributes that the class or module has, those of base classes included.
        class_name: the name of the class; "" for a module.
    """
    name = source_name(name, class_name)
    spelt = [source_name(each, class_name) for each in known]
    if _is_private(name):  # a base class has it: its name is part of the attribute's
        inherited = [each for each in spelt if each.endswith(name) and each != name]
        if inherited:
            return alike(name, inherited, least=0)
    return alike(name, spelt)


def _is_private(name: str) -> bool:
    return name.startswith("__") and not name.endswith("__")

"""The source of what a point does around a call: captured values in, one record out.

For each phase of a call (start, success, failure) a function is generated that knows the point's
fields, so that at the call nothing is looked up, bound or decided that was known at decoration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidelight.emitter import Head
from sidelight.fields import MISSING, Choice, Expression, Phase, Signature, field_source
from sidelight.plain import MAX_TEXT, SCALARS, plain
from sidelight.points import Declaration, Point
from sidelight.record import SPAN, Outcome, Static

_OUTCOMES: Final[Mapping[Phase, Outcome]] = {
    "start": "started",
    "success": "succeeded",
    "failure": "failed",
    "closed": "closed",
}
_VALUES: Final[Mapping[Phase, str]] = {"start": "", "success": "_result, ", "failure": "_error, ", "closed": ""}
NAMES: Final[Mapping[Phase, str]] = {
    "start": "_started",
    "success": "_succeeded",
    "failure": "_failed",
    "closed": "_closed",
}


@dataclass(slots=True)
class Source:
    """Lines of Python under construction, and the objects that they refer to."""

    names: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, indent: int, *lines: str) -> None:
        """Append lines at an indentation of ``indent`` steps."""
        self.lines.extend(f"{'    ' * indent}{line}" for line in lines)

    def name(self, stem: str, value: object) -> str:
        """Give an object a name that the source can use."""
        name = f"_{stem}_{len(self.names)}"
        self.names[name] = value
        return name


@dataclass(frozen=True, slots=True)
class Phases:
    """Which phases of a point's calls have something to write, and how they end.

    ``waits`` is "no", "here" (the phase blocks, bounded) or "outside" (it returns the position that
    an asynchronous wrapper then awaits).
    """

    point: Point
    signature: Signature
    waits: str
    attached: bool

    def has(self, phase: Phase) -> bool:
        """Whether anything happens in ``phase``: a start without an event is none."""
        return phase != "start" or any(d.start for d in self.point.declarations)

    def write(self, source: Source, phase: Phase) -> None:
        """Generate the function of one phase."""
        parameters = ", ".join(self.parameters)
        source.add(0, f"def {NAMES[phase]}(_span, {_VALUES[phase]}{parameters}):")
        source.add(1, "_now = _clock()", "_position = None", "try:")
        if phase != "start":
            self._leave(source, phase)
        self._records(source, phase)
        source.add(1, "except Exception as _problem:")
        source.add(2, f"_lost('not recorded', {self.point.path!r}, _problem)")
        self._account(source)
        source.add(0, "")

    @property
    def parameters(self) -> list[str]:
        """The names that a phase is handed, besides the span and the outcome."""
        star = [name for name in (self.signature.star, self.signature.stars) if name is not None]
        return [*self.signature.own, *star]

    def _leave(self, source: Source, phase: Phase) -> None:
        if self.attached:
            source.add(2, "if _span.token is not None:")
            source.add(3, "try:")
            source.add(4, "_detach(_span.token)")
            source.add(3, "except (ValueError, RuntimeError):", "    pass  # left in another context")
        source.add(2, "if _span.other is not None:")
        source.add(3, f"_span.leave_other({'_error' if phase == 'failure' else 'None'})")

    def _records(self, source: Source, phase: Phase) -> None:
        duration = "None" if phase == "start" else "_now - _span.call"
        details = "None"
        flags = "_span.flags"
        if phase == "start":
            flags = f"_span.flags & {~SPAN}"
        else:
            details = "_details"
            source.add(2, "_details = _span.closing_details()")
            if phase == "failure":
                source.add(2, "_details = {**(_details or {}), 'error': _error_details(_error)}")
        carries_span = phase != "start" and self.point.span
        emitting = [d for d in self.point.declarations if d.types(phase)]
        if not emitting and carries_span:
            head = source.name("head", self._head(None, self.point.declarations[0], phase))
            source.add(2, f"if _span.flags & {SPAN}:")
            source.add(
                3,
                f"_emit({head}, (_span.time, _bits(64), None, None, {duration}, _span.trace or None,"
                f" _span.id, _span.parent_id, _span.flags, None, {details}))",
            )
        for declaration in emitting:
            self._event(source, declaration, phase, duration, flags, details)
            flags, details = f"_span.flags & {~SPAN}", ("_details" if phase == "failure" else "None")

    def _event(
        self,
        source: Source,
        declaration: Declaration,
        phase: Phase,
        duration: str,
        flags: str,
        details: str,
    ) -> None:
        indent = 2
        head = self._head_source(source, declaration, phase, spans=SPAN_CARRIER in flags)
        if head.startswith("_chosen"):
            source.add(indent, f"if {head} is not None:")
            indent += 1
        ids = {}
        for name in ("artifact_id", "organization_id"):
            ids[name] = f"_{name}"
            self._field(source, indent, f"_{name}", getattr(declaration, name), phase)
            source.add(indent, f"if _{name} is None:")
            source.add(indent + 1, f"_{name} = _bound().{name}")
        pairs = []
        for index, (name, value) in enumerate(declaration.attributes.items()):
            if self._field(source, indent, f"_attribute_{index}", value, phase):
                pairs.append(f"{name!r}: _attribute_{index}")
        attributes = f"{{{', '.join(pairs)}}}" if pairs else "None"
        source.add(
            indent,
            f"if _emit({head}, (_span.time, _bits(64), _artifact_id, _organization_id, {duration},"
            f" _span.trace or None, _span.id, _span.parent_id, {flags}, {attributes}, {details})):",
        )
        waits = self.waits != "no" and declaration.mode == "awaited"
        source.add(indent + 1, "_position = _place()" if waits else "pass")

    def _field(self, source: Source, indent: int, name: str, value: Any, phase: Phase) -> bool:
        """Lines that leave a plain value in ``name``; False where the phase has none."""
        if not isinstance(value, Expression) and not callable(value):
            value = plain(value)
        text = field_source(value, self.signature, phase, source.names)
        if text is None or value is None:
            source.add(indent, f"{name} = None")
            return False
        if not isinstance(value, Expression) and not callable(value):
            source.add(indent, f"{name} = {text}")
            return True
        source.add(indent, "try:", f"    {name} = {text}")
        if isinstance(value, Expression):
            source.add(indent, "except _MISSING:", f"    {name} = None")
        source.add(indent, "except Exception as _problem:", f"    {name} = None")
        source.add(indent, f"    _uncaptured({name.removeprefix('_')!r}, _problem)")
        source.add(
            indent,
            f"if (type({name}) is not str or len({name}) > {MAX_TEXT}) and type({name}) not in _SCALARS:",
            f"    {name} = _plain({name})",
        )
        return True

    def _head(self, type_: str | None, declaration: Declaration, phase: Phase) -> Head:
        span_name = self.point.qualname if self.point.span else None
        return Head(Static(type_, self.point.path, declaration.mode, _OUTCOMES[phase], span_name))

    def _head_source(
        self, source: Source, declaration: Declaration, phase: Phase, *, spans: bool
    ) -> str:
        declared = getattr(declaration, phase)
        if not isinstance(declared, Choice):
            return source.name("head", self._head(declared, declaration, phase))
        cases = {key: self._head(t, declaration, phase) for key, t in declared.cases.items()}
        otherwise = None
        if declared.otherwise is not None or (spans and self.point.span):
            otherwise = self._head(declared.otherwise, declaration, phase)
        chooser = source.name("choose", _chooser(cases, otherwise))
        self._field_raw(source, declared.by, phase)
        source.add(2, f"_chosen = {chooser}(_by)")
        return "_chosen"

    def _field_raw(self, source: Source, value: Any, phase: Phase) -> None:
        text = field_source(value, self.signature, phase, source.names) or "None"
        source.add(2, "try:", f"    _by = {text}", "except Exception as _problem:", "    _by = None")
        source.add(2, "    if not isinstance(_problem, _MISSING):", "        _uncaptured('choose', _problem)")

    def _account(self, source: Source) -> None:
        if self.waits == "outside":
            source.add(1, "_span.cost += _clock() - _now", "if _position is not None:")
            source.add(2, "return _position")
            source.add(1, "_cost = _span.cost")
        else:
            if self.waits == "here":
                source.add(1, "if _position is not None:")
                source.add(2, "_wait(_position, _span.cost + _clock() - _now)")
            source.add(1, "_cost = _span.cost + _clock() - _now")
        source.add(1, "_span.cost = 0", "try:", "    _fine[_cost >> 6] += 1")
        source.add(1, "except IndexError:", "    _add_cost(_cost)")


SPAN_CARRIER: Final = "_span.flags"


def _chooser(cases: Mapping[Any, Head], otherwise: Head | None) -> Callable[[Any], Head | None]:
    def choose(value: Any) -> Head | None:
        try:
            found = cases.get(value)
            if found is None:
                found = cases.get(getattr(value, "value", None), otherwise)
        except Exception:  # noqa: BLE001  # unhashable, or a stranger's __eq__
            return otherwise
        return found

    return choose


COMMON: Final[Mapping[str, Any]] = {
    "_MISSING": MISSING,
    "_SCALARS": SCALARS,
    "_plain": plain,
}

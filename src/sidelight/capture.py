"""The code of what a point does around a call: captured values in, one record out.

For each phase of a call (start, success, failure, closed) a function is generated that knows the
point's fields, so that at the call nothing is looked up, bound or decided that was known at
decoration. The templates are Python as it will stand; see `source.fill`.

In this code a name with an underscore is ours, and an argument of the call is ``arg_`` and its
name: whatever a function calls its parameters, nothing is shadowed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sidelight.emitter import Head
from sidelight.fields import MISSING, Choice, Expression, field_source, is_computed
from sidelight.kinds import Phase
from sidelight.lightspan import ARTIFACT_KEY, ORGANIZATION_KEY
from sidelight.plain import MAX_TEXT, SCALARS, plain
from sidelight.points import Declaration, Point
from sidelight.record import SPAN, Outcome, Static
from sidelight.signature import PREFIX, Signature
from sidelight.source import Names, fill

Waits: TypeAlias = Literal["no", "here", "outside"]
"""Of an awaited emission: the phase itself blocks, bounded; or it returns the position that an
asynchronous wrapper then awaits."""

_PHASE: Final = """
def {function}({parameters}):
    _now = _clock()
    {position}
    try:
        {details}
        {records}
        {account}
    except _InstrumentationError:
        raise
    except RecursionError:  # there is no room for a call either
        _losses['recursion limit'] = _losses.get('recursion limit', 0) + 1
    except Exception as _problem:
        _lost('not recorded', _problem)
    {leave_other}
"""

# The span that the application's provider made is told what was captured, whatever that was.
_LEAVE_OTHER: Final = """
finally:
    if _span.other is not None:
        _span.leave_other({error}, _now, {about}, locals())
"""

_VALUE: Final = """
try:
    {name} = {value}
{missing}
except BaseException as _problem:
    {name} = _uncaptured({field}, _problem)
"""

_MISSING: Final = """
except _MISSING:
    {name} = None
"""

# A short text and what is no larger than a machine word goes as it is: most values are such.
_PLAIN: Final = """
if (type({name}) is not str or len({name}) > {longest}) and type({name}) not in _SCALARS:
    {name} = _plain({name})
"""

_DEFAULT: Final = """
if {name} is None:
    {name} = _bound().{field}
"""

# The fields of `record.Moment`, in their order.
_EMIT: Final = """
_emit({head}, (_span.time, _bits(64), _artifact_id, _organization_id, {duration}, \
_span.trace or None, _span.id, _span.parent_id, {flags}, {attributes}, {details}))
"""

_EMIT_AWAITED: Final = """
if {emit}:
    _position = _place()
"""

_CHOSEN: Final = """
{by}
_head = {choose}(_by)
{or_span}
if _head is not None:
    {record}
"""

_OR_SPAN: Final = """
if _head is None and _span.flags & {span}:
    _head = {head}
"""

# A span without an event of its own is found by the same names all the same.
_SPAN_ALONE: Final = """
if _span.flags & {span} or _span.other is not None:
    {fields}
if _span.flags & {span}:
    {record}
"""

# What `closing_details` does, without the call: most spans have nothing to add.
_DETAILS: Final = """
_span.ended = True
_details = _span.details
if _span.trace_state is not None:
    _details = _span.closing_details()
"""

_WAIT_HERE: Final = """
if _position is not None:
    _wait(_position, _span.cost + _clock() - _now)
"""

_COUNT: Final = """
_cost = _span.cost + _clock() - _now
_span.cost = 0
try:
    _fine[_cost >> 6] += 1
except IndexError:
    _add_cost(_cost)
"""

# An asynchronous wrapper counts after its wait, and together with it.
_COUNT_OR_RETURN: Final = """
if _position is not None:
    _span.cost += _clock() - _now
    return _position
{count}
"""

_UNSPANNED: Final = f"_span.flags & {~SPAN}"
_OUTCOMES: Final[Mapping[Phase, Outcome]] = {
    "start": "started",
    "success": "succeeded",
    "failure": "failed",
    "closed": "closed",
}
_FUNCTIONS: Final[Mapping[Phase, str]] = {
    "start": "_started",
    "success": "_succeeded",
    "failure": "_failed",
    "closed": "_closed",
}
_HANDED: Final[Mapping[Phase, list[str]]] = {
    "start": ["_span"],
    "success": ["_span", "_result"],
    "failure": ["_span", "_error"],
    "closed": ["_span"],
}


class PhaseCode(msgspec.Struct, frozen=True):
    """The source of one phase's function and of its call, and the parameters handed on in that."""

    text: str
    call: str
    used: tuple[str, ...]


class Capture(msgspec.Struct, frozen=True):
    """Writes the functions of one point's phases.

    Attributes:
        point: what is to be captured.
        signature: where the arguments are.
        waits: how an awaited emission waits.
        names: gets the objects that the code refers to.
    """

    point: Point
    signature: Signature
    waits: Waits
    names: Names

    def phase(self, phase: Phase) -> PhaseCode | None:
        """The code of one phase; None where nothing happens in it."""
        emitting = [d for d in self.point.declarations if d.types(phase)]
        ends_span = self.point.span and phase != "start"
        if not emitting and not ends_span:
            return None
        self.signature.used.clear()
        records = self._records(phase, emitting, ends_span=ends_span)
        used = list(self.signature.used)
        handed = _HANDED[phase]
        text = fill(
            _PHASE,
            function=_FUNCTIONS[phase],
            parameters=", ".join([*handed, *(f"{PREFIX}{name}" for name in used)]),
            position="" if self.waits == "no" else "_position = None",
            details=self._details(phase),
            records=records,
            account=self._account(),
            leave_other=self._leave_other(phase, emitting) if ends_span else "",
        )
        call = f"{_FUNCTIONS[phase]}({', '.join([*handed, *used])})"
        return PhaseCode(text, call, tuple(used))

    def _leave_other(self, phase: Phase, emitting: list[Declaration]) -> str:
        about = {"_artifact_id": ARTIFACT_KEY, "_organization_id": ORGANIZATION_KEY}
        for declaration in (emitting or self.point.declarations[:1])[-1:]:  # the last has the names
            fields = enumerate(declaration.attributes)
            about |= {f"_attribute_{index}": field for index, field in fields}
        return fill(
            _LEAVE_OTHER,
            error="_error" if phase == "failure" else "None",
            about=self.names.give("about", (self.point.path.replace(":", "."), about)),
        )

    def _account(self) -> str:
        if self.waits == "outside":
            return fill(_COUNT_OR_RETURN, count=_COUNT)
        return (_WAIT_HERE if self.waits == "here" else "") + _COUNT

    def _details(self, phase: Phase) -> str:
        """Lines that collect what is seldom there: the error, what was done to the span."""
        closing = "_span.closing_details()" if self.point.span else "None"
        if phase == "start":
            return ""
        if phase != "failure":
            return _DETAILS if self.point.span else "_details = None"
        return (
            "_error_only = {'error': _error_details(_error)}\n"
            f"_details = {{**({closing} or {{}}), **_error_only}}"
        )

    def _records(self, phase: Phase, emitting: list[Declaration], *, ends_span: bool) -> str:
        """One record for each event; the first carries the span, if need be without an event."""
        if not emitting:
            declaration = self.point.declarations[0]
            head = self._head(None, declaration, phase)
            fields, attributes = self._fields(declaration, phase)
            record = self._emit(head, phase, attributes, carries_span=True)
            return fill(_SPAN_ALONE, span=str(SPAN), fields=fields, record=record)
        return "".join(
            self._event(declaration, phase, carries_span=ends_span and index == 0)
            for index, declaration in enumerate(emitting)
        )

    def _event(self, declaration: Declaration, phase: Phase, *, carries_span: bool) -> str:
        declared = declaration.declared(phase)
        chosen = isinstance(declared, Choice)
        head = "_head" if chosen else self._head(declared, declaration, phase)
        fields, attributes = self._fields(declaration, phase)
        emit = self._emit(head, phase, attributes, carries_span=carries_span)
        if self.waits != "no" and declaration.mode == "awaited":
            emit = fill(_EMIT_AWAITED, emit=emit.strip())
        if not isinstance(declared, Choice):
            return fields + emit
        or_span = ""
        if carries_span:
            span_alone = self._head(None, declaration, phase)
            or_span = fill(_OR_SPAN, span=str(SPAN), head=span_alone)
        return fill(
            _CHOSEN,
            by=self._value("_by", "choose", declared.by, phase) or "_by = None",
            choose=self.names.give("choose", self._chooser(declared, declaration, phase)),
            or_span=or_span,
            record=fields + emit,
        )

    def _emit(self, head: str, phase: Phase, attributes: str, *, carries_span: bool) -> str:
        only_error = "_error_only" if phase == "failure" else "None"
        return fill(
            _EMIT,
            head=head,
            duration="None" if phase == "start" else "_now - _span.call",
            flags="_span.flags" if carries_span else _UNSPANNED,
            attributes=attributes,
            details="_details" if carries_span else only_error,
        )

    def _fields(self, declaration: Declaration, phase: Phase) -> tuple[str, str]:
        """Lines that capture a declaration's fields, and the source of the attributes' mapping."""
        lines = []
        for field in ("artifact_id", "organization_id"):
            name = f"_{field}"
            lines.append(self._plain(name, field, getattr(declaration, field), phase))
            lines.append(fill(_DEFAULT, name=name, field=field))
        pairs = []
        for index, (field, value) in enumerate(declaration.attributes.items()):
            name = f"_attribute_{index}"
            captured = self._plain(name, field, value, phase)
            if captured != f"{name} = None\n":
                lines.append(captured)
                pairs.append(f"{field!r}: {name}")
        return "".join(lines), f"{{{', '.join(pairs)}}}" if pairs else "None"

    def _plain(self, name: str, field: str, value: Any, phase: Phase) -> str:
        """Lines that leave a field's value, made plain, in ``name``."""
        if not is_computed(value):
            value = plain(value)
            return f"{name} = {'None' if value is None else self.names.give('constant', value)}\n"
        captured = self._value(name, field, value, phase)
        if not captured:
            return f"{name} = None\n"
        return captured + fill(_PLAIN, name=name, longest=str(MAX_TEXT))

    def _value(self, name: str, field: str, value: Any, phase: Phase) -> str:
        """Lines that leave a field's value as it is in ``name``; none where the phase has none."""
        source = field_source(value, self.signature, phase, self.names)
        if source is None:
            return ""
        if source.isidentifier():
            return f"{name} = {source}\n"
        missing = fill(_MISSING, name=name) if isinstance(value, Expression) else ""
        return fill(_VALUE, name=name, value=source, missing=missing, field=repr(field))

    def _head(self, type_: Any, declaration: Declaration, phase: Phase) -> str:
        return self.names.give("head", self._made_head(type_, declaration, phase))

    def _made_head(self, type_: Any, declaration: Declaration, phase: Phase) -> Head:
        span_name = self.point.qualname if self.point.span else None
        return Head(Static(type_, self.point.path, declaration.mode, _OUTCOMES[phase], span_name))

    def _chooser(
        self, choice: Choice, declaration: Declaration, phase: Phase
    ) -> Callable[[Any], Head | None]:
        heads = {
            key: self._made_head(type_, declaration, phase) for key, type_ in choice.cases.items()
        }
        otherwise = None
        if choice.otherwise is not None:
            otherwise = self._made_head(choice.otherwise, declaration, phase)
        return _chooser(heads, otherwise, self.names.objects["_uncaptured"])


def _chooser(
    heads: Mapping[Any, Head],
    otherwise: Head | None,
    uncaptured: Callable[[str, BaseException], None],
) -> Callable[[Any], Head | None]:
    def choose(value: Any) -> Head | None:
        if type(value) in {str, bytes} and len(value) > MAX_TEXT:
            return otherwise  # to hash it would take long
        try:
            found = heads.get(value)
            if found is None and isinstance(value, enum.Enum):
                found = heads.get(value.value)
        except TypeError:  # it cannot be hashed: it is none of the cases
            return otherwise
        except BaseException as problem:  # noqa: BLE001  # a stranger's __hash__ or __eq__
            uncaptured("choose", problem)
            return otherwise
        return otherwise if found is None else found

    return choose


COMMON: Final[Mapping[str, Any]] = {"_MISSING": MISSING, "_SCALARS": SCALARS, "_plain": plain}

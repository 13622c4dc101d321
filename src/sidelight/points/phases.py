"""The code of what a point does around a call: captured values in, one record out.

For each phase of a call (start, success, failure, closed) a function is generated that knows the
point's fields, so that at the call nothing is looked up, bound or decided that was known at
decoration. The templates of that code are in `templates`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sidelight.emission import Deferred, Head, read_attribute, resolved
from sidelight.exceptions import TransactionError
from sidelight.points import templates
from sidelight.points.callables import Phase
from sidelight.points.codegen import Names, fill
from sidelight.points.declaration import Declaration
from sidelight.points.expressions import (
    MISSING,
    Choice,
    Expression,
    field_source,
    is_computed,
    transaction_source,
)
from sidelight.points.registry import Point
from sidelight.points.signature import PREFIX, Signature
from sidelight.record import (
    ARTIFACT_KEY,
    MAX_TEXT,
    ORGANIZATION_KEY,
    SCALARS,
    SPAN,
    Outcome,
    Static,
    plain,
)
from sidelight.transactions import Joining

Waits: TypeAlias = Literal["no", "here", "outside"]
"""Of an awaited emission: the phase itself blocks, bounded; or it returns the position that an
asynchronous wrapper then awaits."""

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
        asynchronous: whether the wrapper can await what joins a transaction.
        names: gets the objects that the code refers to.
    """

    point: Point
    signature: Signature
    waits: Waits
    asynchronous: bool
    names: Names

    def phase(self, phase: Phase) -> PhaseCode | None:
        """The code of one phase; None where nothing happens in it."""
        emitting = [d for d in self.point.declarations if d.types(phase)]
        ends_span = self.point.span and phase != "start"
        enlisting = self._joining if phase == "start" else ()
        if not emitting and not ends_span and not enlisting:
            return None
        self.signature.used.clear()
        records = "".join(map(self._enlist, enlisting))
        if enlisting:
            records = f"_tickets = []\n{records}_span.tickets = _tickets\n"
        if emitting or ends_span:
            records += self._records(phase, emitting, ends_span=ends_span)
        used = list(self.signature.used)
        handed = _HANDED[phase]
        text = fill(
            templates.PHASE,
            function=_FUNCTIONS[phase],
            parameters=", ".join([*handed, *(f"{PREFIX}{name}" for name in used)]),
            position="" if self.waits == "no" else "_position = None",
            details=self._details(phase),
            records=records,
            account=self._account(phase, emitting=bool(emitting or ends_span)),
            raised="(_InstrumentationError, _TransactionError)"
            if self._joining
            else "_InstrumentationError",
            leave_other=self._leave_other(phase, emitting) if ends_span else "",
        )
        call = f"{_FUNCTIONS[phase]}({', '.join([*handed, *used])})"
        return PhaseCode(text, call, tuple(used))

    @property
    def _joining(self) -> Sequence[Declaration]:
        """The declarations whose event on success joins a transaction."""
        return [declaration for declaration in self.point.declarations if declaration.joins]

    def _enlist(self, declaration: Declaration) -> str:
        target = declaration.transaction
        if target is None:
            target = declaration.after_commit
        source = transaction_source(target, self.signature, self.names)
        field = "transaction" if declaration.after_commit is None else "after_commit"
        return fill(
            templates.ENLIST,
            value=fill(
                templates.VALUE,
                name="_transaction",
                value=source or "None",
                missing=fill(templates.MISSING, name="_transaction"),
                field=repr(field),
            ),
            enlist=self.names.give("enlist", self._made_joining(declaration).enlist),
        )

    def _made_joining(self, declaration: Declaration) -> Joining:
        return Joining(
            self.point.path,
            strict=declaration.strict,
            after_commit=declaration.after_commit is not None,
        )

    def _leave_other(self, phase: Phase, emitting: list[Declaration]) -> str:
        about = {"_artifact_id": ARTIFACT_KEY, "_organization_id": ORGANIZATION_KEY}
        for declaration in (emitting or self.point.declarations[:1])[-1:]:  # the last has the names
            fields = enumerate(declaration.attributes)
            about |= {f"_attribute_{index}": field for index, field in fields}
        return fill(
            templates.LEAVE_OTHER,
            error="_error" if phase == "failure" else "None",
            about=self.names.give("about", (self.point.path.replace(":", "."), about)),
        )

    def _account(self, phase: Phase, *, emitting: bool) -> str:
        if phase == "start" and not emitting:
            return "_span.cost += _clock() - _now"
        count = templates.COUNT
        if self.asynchronous and self._joining and phase == "success":
            count = fill(templates.COUNT_UNLESS_JOINING, count=count)
        if self.waits == "outside":
            return fill(templates.COUNT_OR_RETURN, count=count)
        return (templates.WAIT_HERE if self.waits == "here" else "") + count

    def _details(self, phase: Phase) -> str:
        """Lines that collect what is seldom there: the error, what was done to the span."""
        closing = "_span.closing_details()" if self.point.span else "None"
        if phase == "start":
            return ""
        if phase != "failure":
            return templates.DETAILS if self.point.span else "_details = None"
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
            return fill(templates.SPAN_ALONE, span=str(SPAN), fields=fields, record=record)
        return "".join(
            self._event(declaration, phase, carries_span=ends_span and index == 0)
            for index, declaration in enumerate(emitting)
        )

    def _event(self, declaration: Declaration, phase: Phase, *, carries_span: bool) -> str:
        if declaration.joins and phase == "success":
            return self._joined(declaration, carries_span=carries_span)
        declared = declaration.declared(phase)
        chosen = isinstance(declared, Choice)
        head = "_head" if chosen else self._head(declared, declaration, phase)
        fields, attributes = self._fields(declaration, phase)
        emit = self._emit(head, phase, attributes, carries_span=carries_span)
        if self.waits != "no" and declaration.mode == "awaited":
            emit = fill(templates.EMIT_AWAITED, emit=emit.strip())
        if not isinstance(declared, Choice):
            return fields + emit
        or_span = ""
        if carries_span:
            span_alone = self._head(None, declaration, phase)
            or_span = fill(templates.OR_SPAN, span=str(SPAN), head=span_alone)
        return fill(
            templates.CHOSEN,
            by=self._value("_by", "choose", declared.by, phase) or "_by = None",
            choose=self.names.give("choose", self._chooser(declared, declaration, phase)),
            or_span=or_span,
            record=fields + emit,
        )

    def _joined(self, declaration: Declaration, *, carries_span: bool) -> str:
        """Lines that give the event to its transaction, and the span to the spool at once."""
        declared = declaration.success
        fields, attributes = self._fields(declaration, "success")
        ticket = f"_span.tickets[{self._joining.index(declaration)}]"
        head = "_head"
        if isinstance(declared, Choice):
            by = self._value("_by", "choose", declared.by, "success", mapped=True)
            choose = self.names.give("choose", self._chooser(declared, declaration, "success"))
            fields += f"{by}_head = {choose}(_known(_by))\n"
        else:
            head = self._head(declared, declaration, "success")
        join = fill(
            templates.JOIN,
            ticket=ticket,
            join="defer" if self.asynchronous else "join",
            span="_span, " if self.asynchronous else "",
            head=head,
            moment=self._moment("success", attributes, carries_span=False).strip(),
        )
        span = ""
        if carries_span:
            now = re.sub(r"(_attribute_\d+)", r"_known(\1)", attributes)
            moment = self._moment("success", now, carries_span=True, known=True)
            alone = self._head(None, declaration, "success")
            span = f"if _span.flags & {SPAN}:\n    _emit({alone}, {moment.strip()})\n"
        return fill(
            templates.JOINED,
            ticket=ticket,
            fields=fields,
            span=span,
            join=f"if _head is not None:\n    {join.strip()}\n" if head == "_head" else join,
        )

    def _emit(self, head: str, phase: Phase, attributes: str, *, carries_span: bool) -> str:
        moment = self._moment(phase, attributes, carries_span=carries_span)
        return fill(templates.EMIT, head=head, moment=moment.strip())

    def _moment(
        self, phase: Phase, attributes: str, *, carries_span: bool, known: bool = False
    ) -> str:
        only_error = "_error_only" if phase == "failure" else "None"
        return fill(
            templates.MOMENT,
            artifact="_known(_artifact_id)" if known else "_artifact_id",
            organization="_known(_organization_id)" if known else "_organization_id",
            duration="None" if phase == "start" else "_now - _span.call",
            flags="_span.flags" if carries_span else templates.UNSPANNED,
            attributes=attributes,
            details="_details" if carries_span else only_error,
        )

    def _fields(self, declaration: Declaration, phase: Phase) -> tuple[str, str]:
        """Lines that capture a declaration's fields, and the source of the attributes' mapping."""
        lines = []
        for field in ("artifact_id", "organization_id"):
            name = f"_{field}"
            value = getattr(declaration, field)
            lines.append(self._plain(name, field, value, phase, mapped=declaration.joins))
            lines.append(fill(templates.DEFAULT, name=name, field=field))
        pairs = []
        for index, (field, value) in enumerate(declaration.attributes.items()):
            name = f"_attribute_{index}"
            captured = self._plain(name, field, value, phase, mapped=declaration.joins)
            if captured != f"{name} = None\n":
                lines.append(captured)
                pairs.append(f"{field!r}: {name}")
        return "".join(lines), f"{{{', '.join(pairs)}}}" if pairs else "None"

    def _plain(self, name: str, field: str, value: Any, phase: Phase, *, mapped: bool) -> str:
        """Lines that leave a field's value, made plain, in ``name``."""
        if not is_computed(value):
            value = plain(value)
            return f"{name} = {'None' if value is None else self.names.give('constant', value)}\n"
        captured = self._value(name, field, value, phase, mapped=mapped)
        if not captured:
            return f"{name} = None\n"
        scalars = "_SCALARS"
        if mapped and phase == "success":
            scalars = "_SCALARS_OR_LATE"
        elif mapped:
            captured += f"{name} = _known({name})\n"
        return captured + fill(templates.PLAIN, name=name, longest=str(MAX_TEXT), scalars=scalars)

    def _value(
        self, name: str, field: str, value: Any, phase: Phase, *, mapped: bool = False
    ) -> str:
        """Lines that leave a field's value as it is in ``name``; none where the phase has none."""
        source = field_source(value, self.signature, phase, self.names, mapped=mapped)
        if source is None:
            return ""
        if source.isidentifier():
            return f"{name} = {source}\n"
        missing = fill(templates.MISSING, name=name) if isinstance(value, Expression) else ""
        return fill(templates.VALUE, name=name, value=source, missing=missing, field=repr(field))

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


COMMON: Final[Mapping[str, Any]] = {
    "_MISSING": MISSING,
    "_SCALARS": SCALARS,
    "_SCALARS_OR_LATE": SCALARS | {Deferred},
    "_TransactionError": TransactionError,
    "_known": resolved,
    "_plain": plain,
    "_read": read_attribute,
}

"""The functions that a wrapper calls in the phases of a call: captured values in, one record out.

One function is generated for each phase (start, success, failure, closed). It knows the point's
fields, so that a call looks up and decides nothing that was known at decoration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sidelight.emission import Head
from sidelight.points import templates
from sidelight.points.codegen import Names, fill
from sidelight.points.expressions import Choice, Phase
from sidelight.points.fields import Fields, Source
from sidelight.points.namespace import chooser
from sidelight.points.registry import Point
from sidelight.points.signature import PREFIX
from sidelight.record import (
    ARTIFACT_KEY,
    CALL,
    ORGANIZATION_KEY,
    SPAN,
    WHOLE_FIELDS,
    Outcome,
    Static,
    longest_text,
)
from sidelight.transactions import Joining, prepare_libraries

Waits: TypeAlias = Literal["no", "here", "outside"]
"""How an awaited emission waits: "here" the phase itself blocks, bounded; "outside" the phase
returns a position, which an asynchronous wrapper awaits."""

_OUTCOMES: Final[Mapping[Phase, Outcome]] = {
    "start": "started",
    "success": "succeeded",
    "failure": "failed",
    "closed": "closed",
}
_FUNCTIONS: Final[Mapping[Phase, str]] = {
    phase: f"_{outcome}" for phase, outcome in _OUTCOMES.items()
}
_HANDED_OVER: Final[Mapping[Phase, list[str]]] = {
    "start": ["_span"],
    "success": ["_span", "_result"],
    "failure": ["_span", "_error"],
    "closed": ["_span"],
}
#: Classes are compared by identity, because a metaclass may define ``__hash__``.
_NOT_SCALAR: Final = "type({}) is not _int and {} is not None and type({}) is not _bool"
_NOT_DEFERRED: Final = " and type({}) is not _Deferred"
_IDS: Final = ("artifact_id", "organization_id")
# The span outlives the call in each context that was copied meanwhile: by a task, a timer or an
# asynchronous connection. So it lets go of the transactions, which would keep their connections.
_TAKE_TICKETS: Final = "_tickets, _span.tickets = _span.tickets, ()\n"
_DROP_TICKETS: Final = "_span.tickets = ()\n"


class PhaseFunction(msgspec.Struct, frozen=True):
    """The function of one phase.

    Attributes:
        name: its name in generated code.
        text: its source.
        call: the source of its call.
        parameters: the wrapper's parameters that the call hands over.
        guarded: whether the function tells `namespace.CaptureGuard` that it captures.
    """

    name: str
    text: str
    call: str
    parameters: tuple[str, ...]
    guarded: bool


class PhaseWriter:
    """Writes the functions of one point's phases.

    Args:
        point: the point.
        fields: the compiled fields of its declarations, in their order.
        names: gets the objects that the code refers to.
        waits: how an awaited emission waits.
        asynchronous: whether the wrapper can await what joins a transaction.
    """

    def __init__(
        self,
        point: Point,
        fields: Sequence[Fields],
        names: Names,
        *,
        waits: Waits,
        asynchronous: bool,
    ) -> None:
        self._point = point
        self._fields = fields
        self._names = names
        self._waits = waits
        self._asynchronous = asynchronous
        self._joining = [each for each in fields if each.declaration.joins]
        self._used: dict[str, None] = {}
        self._computes = False

    def function(self, phase: Phase) -> PhaseFunction | None:
        """Return the function of one phase; None where nothing happens in it."""
        emitting = [each for each in self._fields if each.declaration.types(phase)]
        ends_span = self._point.span and phase != "start"
        enlisting = self._joining if phase == "start" else ()
        if not emitting and not ends_span and not enlisting:
            return None
        self._used.clear()
        self._computes = False
        records = "".join(map(self._enlist, enlisting))
        if enlisting:
            records = f"_tickets = []\n{records}_span.tickets = _tickets\n"
        if emitting or ends_span:
            records += self._records(phase, emitting, ends_span=ends_span)
        records = self._details(phase) + records
        if self._joining and phase != "start":
            take = _TAKE_TICKETS if phase == "success" else _DROP_TICKETS
            records = take + records
        # A finalizer is never called by a capture, but garbage collection runs it in the middle.
        guarded = (self._computes or phase == "failure") and self._point.function != "__del__"
        if guarded:
            records = fill(templates.CAPTURE, records=records)
        name, handed_over, used = _FUNCTIONS[phase], _HANDED_OVER[phase], tuple(self._used)
        errors = "_TransactionError, _InstrumentationError"
        text = fill(
            templates.PHASE,
            function=name,
            parameters=", ".join([*handed_over, *(f"{PREFIX}{each}" for each in used)]),
            position="" if self._waits == "no" else "_position = None",
            records=records,
            account=self._account(phase, emits=bool(emitting or ends_span)),
            raised=f"({errors})" if self._joining else "_InstrumentationError",
            end_foreign=self._end_foreign(phase, emitting) if ends_span else "",
        )
        call = f"{name}({', '.join([*handed_over, *used])})"
        return PhaseFunction(name, text, call, used, guarded)

    # -- what surrounds the records ----------------------------------------------------------

    def _details(self, phase: Phase) -> str:
        """Return lines that collect what few records have: the error, what the span was given."""
        if phase == "start":
            return ""
        if phase == "failure":
            closing = "_span.closing_details()" if self._point.span else "None"
            return fill(templates.DETAILS_OF_FAILURE, closing=closing)
        return templates.DETAILS if self._point.span else "_details = None\n"

    def _account(self, phase: Phase, *, emits: bool) -> str:
        """Return lines that count the emission's cost, and wait for the store."""
        if phase == "start" and not emits:
            return templates.COUNT_LATER
        count = templates.COUNT
        if self._asynchronous and self._joining and phase == "success":
            count = fill(templates.COUNT_UNLESS_JOINING, count=count)
        if self._waits == "outside":
            return fill(templates.COUNT_OR_RETURN, count=count)
        return fill(templates.WAIT_HERE, count=count) if self._waits == "here" else count

    def _end_foreign(self, phase: Phase, emitting: Sequence[Fields]) -> str:
        about = {"_artifact_id": ARTIFACT_KEY, "_organization_id": ORGANIZATION_KEY}
        for fields in (emitting or self._fields[:1])[-1:]:  # the last one has set the variables
            about |= {variable: name for name, variable, _ in _attributes(fields)}
        return fill(
            templates.END_FOREIGN,
            error="_error" if phase == "failure" else "None",
            about=self._names.give("about", (self._point.path.replace(":", "."), about)),
        )

    # -- records -----------------------------------------------------------------------------

    def _records(self, phase: Phase, emitting: Sequence[Fields], *, ends_span: bool) -> str:
        """Return one record for each event.

        The first record carries the span, with or without an event.
        """
        if not emitting:
            fields = self._fields[0]
            moment = self._moment(phase, fields, carries_span=True)
            record = fill(templates.EMIT, head=self._head(None, fields, phase), moment=moment)
            captured = fill(templates.SPAN_FIELDS, fields=self._captured(fields, phase))
            return captured + fill(templates.SPAN_RECORD, record=record)
        return "".join(
            self._event(fields, phase, carries_span=ends_span and index == 0)
            for index, fields in enumerate(emitting)
        )

    def _event(self, fields: Fields, phase: Phase, *, carries_span: bool) -> str:
        declaration = fields.declaration
        if declaration.joins and phase == "success":
            return self._joined(fields, carries_span=carries_span)
        declared = declaration.declared(phase)
        chosen = isinstance(declared, Choice)
        head = "_head" if chosen else self._head(declared, fields, phase)
        moment = self._moment(phase, fields, carries_span=carries_span)
        emit = fill(templates.EMIT, head=head, moment=moment)
        if self._waits != "no" and declaration.mode == "awaited":
            emit = fill(templates.EMIT_AWAITED, emit=emit.strip())
        captured = self._captured(fields, phase)
        if not isinstance(declared, Choice):
            return captured + emit
        or_span = ""
        if carries_span:
            or_span = fill(templates.OR_SPAN, head=self._head(None, fields, phase))
        return fill(
            templates.CHOSEN,
            by=self._value("_by", "choose", fields.choices[phase]),
            choose=self._chooser(declared, fields, phase),
            or_span=or_span,
            record=captured + emit,
        )

    def _enlist(self, fields: Fields) -> str:
        """Return lines that look at the transaction that an event on success will join."""
        declaration = fields.declaration
        assert fields.transaction is not None  # noqa: S101  # for the type checker
        field = "transaction" if declaration.after_commit is None else "after_commit"
        prepare_libraries(self._point.path)
        joining = Joining(
            self._point.path,
            strict=declaration.strict,
            after_commit=declaration.after_commit is not None,
        )
        return fill(
            templates.ENLIST,
            value=self._value("_transaction", field, fields.transaction),
            enlist=self._names.give("enlist", joining.enlist),
        )

    def _named_again(self, fields: Fields) -> str:
        """Return a function that reads the transaction again; empty for one that stays the same."""
        source = fields.transaction
        assert source is not None  # noqa: S101  # for the type checker
        if not source.computed or source.text.isidentifier():
            return ""
        self._used |= dict.fromkeys(source.parameters)
        self._computes = True
        return f"lambda: {source.text}"

    def _joined(self, fields: Fields, *, carries_span: bool) -> str:
        """Return lines that give the event to its transaction, and the span to the spool."""
        declared = fields.declaration.success
        ticket = f"_tickets[{self._joining.index(fields)}]"
        captured = self._captured(fields, "success")
        head = "_head"
        if isinstance(declared, Choice):
            by = self._value("_by", "choose", fields.choices["success"])
            choose = self._chooser(declared, fields, "success")
            captured += f"{by}_head = {choose}(_resolved(_by))\n"
        else:
            head = self._head(declared, fields, "success")
        join = fill(
            templates.JOIN_OR_DEFER if self._asynchronous else templates.JOIN,
            ticket=ticket,
            head=head,
            moment=self._moment("success", fields, carries_span=False),
        )
        span = ""
        if carries_span:
            moment = self._moment("success", fields, carries_span=True, read="_resolved({})")
            alone = self._head(None, fields, "success")
            record = fill(templates.EMIT, head=alone, moment=moment)
            span = fill(templates.SPAN_RECORD, record=record)
        return fill(
            templates.JOINED,
            ticket=ticket,
            named=self._named_again(fields),
            fields=captured,
            span=span,
            join=f"if _head is not None:\n    {join.strip()}\n" if head == "_head" else join,
        )

    def _moment(self, phase: Phase, fields: Fields, *, carries_span: bool, read: str = "{}") -> str:
        """Return the source of a record's moment.

        ``read`` reads a variable that holds a field's value.
        """
        pairs = [
            f"{name!r}: {read.format(variable)}"
            for name, variable, source in _attributes(fields)
            if _is_known(source, phase)
        ]
        own = f"{{{', '.join(pairs)}}}" if pairs else "None"
        only_error = "_error_only" if phase == "failure" else "None"
        return fill(
            templates.MOMENT,
            artifact=read.format("_artifact_id"),
            organization=read.format("_organization_id"),
            duration="None" if phase == "start" else "_now - _span.call",
            flags=self._flags(phase, carries_span=carries_span),
            attributes=fill(templates.ATTRIBUTES, own=own),
            details="_details" if carries_span else only_error,
        ).strip()

    def _flags(self, phase: Phase, *, carries_span: bool) -> str:
        if not any(fields.declaration.start for fields in self._fields):
            return "_span.flags" if carries_span else templates.FLAGS_WITHOUT_SPAN
        if phase == "start":
            # A span that is exported is recorded at the end of the call, with or without an event.
            return f"{templates.FLAGS_WITHOUT_SPAN} | (_span.flags & {SPAN}) * {CALL}"
        return f"_span.flags | {CALL}" if carries_span else templates.FLAGS_WITHOUT_SPAN

    def _head(self, type_: Any, fields: Fields, phase: Phase) -> str:
        return self._names.give("head", self._made_head(type_, fields, phase))

    def _made_head(self, type_: Any, fields: Fields, phase: Phase) -> Head:
        span_name = self._point.qualname if self._point.span else None
        mode = fields.declaration.mode
        return Head(Static(type_, self._point.path, mode, _OUTCOMES[phase], span_name))

    def _chooser(self, choice: Choice, fields: Fields, phase: Phase) -> str:
        heads = {key: self._made_head(type_, fields, phase) for key, type_ in choice.cases.items()}
        otherwise = None
        if choice.otherwise is not None:
            otherwise = self._made_head(choice.otherwise, fields, phase)
        made = chooser(heads, otherwise, self._names.objects["_uncaptured"])
        return self._names.give("choose", made)

    # -- values ------------------------------------------------------------------------------

    def _captured(self, fields: Fields, phase: Phase) -> str:
        """Return lines that capture the fields of a declaration, each in a separate variable."""
        mapped, number = fields.declaration.joins, len(fields.values)
        lines = ["_shared = None\n"] if number > WHOLE_FIELDS else []
        for name in _IDS:
            source = fields.values[name]
            if not _is_known(source, phase):
                lines.append(f"_{name} = _bound().{name}\n")
                continue
            lines.append(self._plain(f"_{name}", name, source, phase, number, mapped=mapped))
            if source.computed:
                lines.append(fill(templates.DEFAULT, name=f"_{name}", field=name))
        for name, variable, source in _attributes(fields):
            if _is_known(source, phase):
                lines.append(self._plain(variable, name, source, phase, number, mapped=mapped))
        return "".join(lines)

    def _plain(
        self, variable: str, field: str, source: Source, phase: Phase, number: int, *, mapped: bool
    ) -> str:
        """Return lines that leave a field's value, made plain, in ``variable``."""
        if not source.computed:
            return f"{variable} = {source.text}\n"
        captured, shares = self._value(variable, field, source), number > WHOLE_FIELDS
        not_scalar = _NOT_SCALAR
        if mapped and phase == "success":
            not_scalar += _NOT_DEFERRED
        elif mapped:
            captured += f"{variable} = _resolved({variable})\n"
        return captured + fill(
            templates.PLAIN,
            name=variable,
            longest=str(longest_text(number)),
            shared=f"(_shared := _shared or _Allowance({number}))" if shares else "None",
            not_scalar=not_scalar.replace("{}", variable),
        )

    def _value(self, variable: str, field: str, source: Source) -> str:
        """Return lines that leave a field's value as it is in ``variable``."""
        self._used |= dict.fromkeys(source.parameters)
        self._computes = True
        if source.text.isidentifier():
            return f"{variable} = {source.text}\n"
        missing = fill(templates.MISSING, name=variable) if source.skips_missing else ""
        return fill(
            templates.VALUE, name=variable, value=source.text, missing=missing, field=repr(field)
        )


def _attributes(fields: Fields) -> list[tuple[str, str, Source]]:
    """Return the attributes of a declaration: name, variable, source."""
    attributes = [each for each in fields.values.items() if each[0] not in _IDS]
    return [
        (name, f"_attribute_{index}", source) for index, (name, source) in enumerate(attributes)
    ]


def _is_known(source: Source, phase: Phase) -> bool:
    return phase in source.phases and source.text != "None"

"""The text of a wrapper: every template of generated code, in the order of a call.

First the wrapper of each kind of callable, then the blocks inside it, then the functions that it
calls in the phases of a call. Names with an underscore belong to sidelight. In the functions of
phases an argument of the call is ``arg_`` and its name, so that no name of a parameter shadows
anything. `codegen.fill` fills the templates; `namespace` has the objects behind the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sidelight.record import SPAN

# -- the wrapper of each kind of callable ----------------------------------------------------------
# ``{call}`` calls the decorated function; ``{started}``, ``{succeeded}``, ``{failed}`` and
# ``{closed}`` the point's phases. ``{names}`` unpacks `namespace.References`. ``{bypass}`` calls
# the bare function where the point's own capture does, as ``arg.self`` in a ``__repr__`` makes it.

FUNCTION: Final = """
def {name}({parameters}):
    {names}
    {bypass}
    {begin}
    try:
        {enter}
        {started}
        _result = {call}
    except BaseException as _error:
        {leave}
        {failed}
        raise
    {leave}
    {succeeded}
    return _result
"""

# A coroutine that another task closes ends in another context, and leaves that context alone.
COROUTINE: Final = """
async def {name}({parameters}):
    {names}
    {begin}
    try:
        try:
            {attach}
            {started}
            _result = await {call}
        finally:
            {detach}
    except GeneratorExit:
        {detach_again}
        {closed}
        raise
    except BaseException as _error:
        {detach_again}
        {failed}
        raise
    {succeeded}
    return _result
"""

# The body keeps its own context between resumes, and nothing is left attached across a yield. The
# box empties itself, so that the wrapper keeps no object alive that body and consumer have let go.
# An exception that the consumer throws in shows this frame once, as it passes out again.
GENERATOR: Final = """
def {name}({parameters}):
    {names}
    {bypass}
    {begin}
    {keep}
    try:
        {enter}
        {started}
        _generator = {call}
        _resume, _box = _generator.send, [None]
        while True:
            _box.append(_resume(_box.pop()))
            {give_way}
            try:
                _box.append((yield _box.pop()))
                _resume = _generator.send
            except BaseException as _thrown:
                _box.append(_without_frame(_thrown))
                _resume = _generator.throw
            {come_back}
    except StopIteration as _stop:
        {leave_resumed}
        _result = _stop.value
    except GeneratorExit:
        {leave_resumed}
        {closed}
        raise
    except BaseException as _error:
        {leave_resumed}
        {failed}
        raise
    {succeeded}
    return _result
"""

ASYNC_GENERATOR: Final = """
async def {name}({parameters}):
    {names}
    {begin}
    {keep}
    try:
        {enter}
        {started}
        _generator = {call}
        _resume, _box = _first_resume(_generator), [None]
        while True:
            _box.append(await _resume(_box.pop()))
            {give_way}
            try:
                _box.append((yield _box.pop()))
                _resume = _generator.asend
            except BaseException as _thrown:
                _box.append(_without_frame(_thrown))
                _resume = _generator.athrow
            {come_back}
    except StopAsyncIteration:
        {leave_resumed}
        _result = None
    except GeneratorExit:
        {leave_resumed}
        {closed}
        raise
    except BaseException as _error:
        {leave_resumed}
        {failed}
        raise
    {succeeded}
"""

# A plain function around a coroutine or generator function. Where it returns a coroutine or
# generator, the call goes on in there: `_continued`, made from a template above, ends the call.
DEFERRED: Final = """
def {name}({parameters}):
    {names}
    {bypass}
    {begin}
    _position = None
    try:
        {enter}
        {started}
        _result = {call}
    except BaseException as _error:
        {leave}
        {failed}
        raise
    {leave}
    if _is_pending(_result):
        return _continued(_span, _position, _result{handed})
    if _is_future(_result):
        return _when_done(_result, lambda _result: {success}, lambda _error: {failure})
    {succeeded}
    return _result
"""

# -- blocks of a wrapper ---------------------------------------------------------------------------

NAMES: Final = "{names}, = {reference}.objects"
BEGIN: Final = "_span = _enter()"

# The wrapper behind a wrapt proxy: wrapt hands over the instance of a bound method apart.
BEGIN_PROXIED: Final = """
args = _args if _function is _original else (_instance, *_args)
_span = _enter()
"""
PROXIED_PARAMETERS: Final = "_function, _instance, _args, kwargs"
PROXIED_CALL: Final = "_function(*_args, **kwargs)"

BYPASS: Final = """
if _capture.active and _capture.reentered():
    return {call}
"""

# The last call into C of each block changes the context, so that an interrupt (a signal handler's
# exception) always finds the `try` that undoes the change.
CONTEXT_BLOCKS: Final[Mapping[str, str]] = {
    "enter": "_set_context(_span.context)",
    "leave": "_set_context(_span.outer)",
    "attach": "_span.token = _set_context(_span.context)",
    "detach": """
if _get_context() is _span.context:
    _set_context(_span.outer)
else:
    _detach_token(_span.token)
""",
    "detach_again": """
if _get_context() is _span.context:  # an interrupt came before the detach
    _set_context(_span.outer)
""",
    "keep": "_outer = _get_context()",
    "give_way": """
_inner = _get_context()
_set_context(_outer)
""",
    "come_back": """
_outer = _get_context()
_set_context(_inner)
""",
    "leave_resumed": "_set_context(_outer)",
}
NO_CONTEXT_BLOCKS: Final = {**dict.fromkeys(CONTEXT_BLOCKS, ""), "detach": "pass"}

AWAIT_STORE: Final = """
if _position is not None:
    await {arrive}(_span, _position)
"""

BLOCK_FOR_STORE: Final = """
if _position is not None:
    _wait_counted(_span, _position)
"""

JOIN_DEFERRED: Final = """
{emission}
if _span.joining is not None:
    {join}(_span)
"""

_OF_WRAPPERS: Final = (
    *(FUNCTION, COROUTINE, GENERATOR, ASYNC_GENERATOR, DEFERRED),
    *(BEGIN, BEGIN_PROXIED, PROXIED_PARAMETERS, BYPASS, *CONTEXT_BLOCKS.values()),
    *(AWAIT_STORE, BLOCK_FOR_STORE, JOIN_DEFERRED),
)
RESERVED: Final = frozenset(
    (
        *re.findall(r"\b(?:_[a-z_]+|[A-Z]\w+)\b", "".join(_OF_WRAPPERS)),
        *("_started", "_succeeded", "_failed", "_closed"),
        *("_arrive", "_arrive_last", "_join_here", "_join_awaited"),
    )
)
"""The names that no parameter of a wrapper may have."""

# -- the functions of phases -----------------------------------------------------------------------

PHASE: Final = """
def {function}({parameters}):
    _now = _clock()
    {position}
    try:
        {records}
        {account}
    except {raised}:
        raise
    except RecursionError:  # there is no room for a call either
        _losses['recursion limit'] += 1
    except Exception as _problem:
        _lost('not recorded', _problem)
    {end_foreign}
"""

# A span that the application's provider made gets the captured values, whatever was emitted.
END_FOREIGN: Final = """
finally:
    if _span.foreign is not None:
        _span.end_foreign({error}, _now, {about}, locals())
"""

# An exception may leave `active` set. Then `reentered` looks into the stack, and finds nothing.
CAPTURE: Final = """
_capture.active = True
{records}
_capture.active = False
"""

VALUE: Final = """
try:
    {name} = {value}
{missing}
except BaseException as _problem:
    {name} = _uncaptured({field}, _problem)
"""

MISSING: Final = """
except _MISSING:
    {name} = None
"""

# Most values need no copy: short texts and numbers. A float may be NaN, which has no JSON form.
PLAIN: Final = """
if (type({name}) is not str or len({name}) > {longest}) and {not_scalar}:
    {name} = _plain({name}, 0, {shared})
"""

DEFAULT: Final = """
if {name} is None:
    {name} = _bound().{field}
"""

# The fields of `record.Moment`, in their order.
MOMENT: Final = """
(_span.time, _bits(64), {artifact}, {organization}, {duration}, \
_span.trace or None, _span.id, _span.parent_id, {flags}, {attributes}, {details})
"""

ATTRIBUTES: Final = "{own} if not _binding.has_attributes else _with_bound({own})"
FLAGS_WITHOUT_SPAN: Final = f"_span.flags & {~SPAN}"

# The same as `closing_details`, without the call, because most spans have nothing to add.
DETAILS: Final = """
_span.ended = True
_details = _span.details
if _span.trace_state is not None:
    _details = _span.closing_details()
"""

DETAILS_OF_FAILURE: Final = """
_error_only = {'error': _error_details(_error)}
_details = {**({closing} or {}), **_error_only}
"""

EMIT: Final = "_emit({head}, {moment})\n"

EMIT_AWAITED: Final = """
if {emit}:
    _position = _place()
"""

CHOSEN: Final = """
{by}
_head = {choose}(_by)
{or_span}
if _head is not None:
    {record}
"""

OR_SPAN: Final = f"""
if _head is None and _span.flags & {SPAN}:
    _head = {{head}}
"""

# A span without an event has the ids too, so that it can be found by them.
SPAN_FIELDS: Final = f"""
if _span.flags & {SPAN} or _span.foreign is not None:
    {{fields}}
"""
SPAN_RECORD: Final = f"""
if _span.flags & {SPAN}:
    {{record}}
"""

# A transaction is looked at before the call, so that it shows when the function itself commits.
ENLIST: Final = """
{value}
_tickets.append({enlist}(_transaction))
"""

# An event in a transaction leaves its span to the spool, because the span stays true after a
# rollback. While the fields are read, a session flushes nothing.
JOINED: Final = """
{ticket}.look_again({named})
_restore_autoflush = {ticket}.suspend_autoflush()
try:
    {fields}
finally:
    _restore_autoflush()
{span}
{join}
"""

JOIN: Final = "{ticket}.join({head}, {moment})\n"
JOIN_OR_DEFER: Final = "{ticket}.defer(_span, {head}, {moment})\n"

WAIT_HERE: Final = """
if _position is not None:
    _wait(_position, _span.cost + _clock() - _now)
{count}
"""

COUNT_LATER: Final = "_span.cost += _clock() - _now"

COUNT: Final = """
_cost = _span.cost + _clock() - _now
_span.cost = 0
try:
    _fine[_cost >> 6] += 1
except IndexError:
    _add_cost(_cost)
"""

# An asynchronous wrapper counts after its wait, together with the wait.
COUNT_OR_RETURN: Final = """
if _position is not None:
    _span.cost += _clock() - _now
    return _position
{count}
"""

# An asynchronous wrapper awaits the joins first, and counts them too.
COUNT_UNLESS_JOINING: Final = """
if _span.joining is not None:
    _span.cost += _clock() - _now
else:
    {count}
"""

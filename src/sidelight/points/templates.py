"""The templates of a phase's code: what a point does around a call, as Python will see it.

A name with an underscore is ours, and an argument of the call is ``arg_`` and its name: whatever a
function calls its parameters, nothing is shadowed. See `source.fill`.
"""

from __future__ import annotations

from typing import Final

from sidelight.record import SPAN

PHASE: Final = """
def {function}({parameters}):
    _now = _clock()
    {position}
    try:
        {details}
        {records}
        {account}
    except {raised}:
        raise
    except RecursionError:  # there is no room for a call either
        _losses['recursion limit'] = _losses.get('recursion limit', 0) + 1
    except Exception as _problem:
        _lost('not recorded', _problem)
    {leave_other}
"""

# The span that the application's provider made is told what was captured, whatever that was.
LEAVE_OTHER: Final = """
finally:
    if _span.foreign is not None:
        _span.end_foreign({error}, _now, {about}, locals())
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

# A short text and what is no larger than a machine word goes as it is: most values are such.
PLAIN: Final = """
if (type({name}) is not str or len({name}) > {longest}) and type({name}) not in {scalars}:
    {name} = _plain({name})
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

EMIT: Final = """
_emit({head}, {moment})
"""

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

OR_SPAN: Final = """
if _head is None and _span.flags & {span}:
    _head = {head}
"""

# A span without an event of its own is found by the same names all the same.
SPAN_ALONE: Final = """
if _span.flags & {span} or _span.foreign is not None:
    {fields}
if _span.flags & {span}:
    {record}
"""

# What `closing_details` does, without the call: most spans have nothing to add.
DETAILS: Final = """
_span.ended = True
_details = _span.details
if _span.trace_state is not None:
    _details = _span.closing_details()
"""

WAIT_HERE: Final = """
if _position is not None:
    _wait(_position, _span.cost + _clock() - _now)
"""

COUNT: Final = """
_cost = _span.cost + _clock() - _now
_span.cost = 0
try:
    _fine[_cost >> 6] += 1
except IndexError:
    _add_cost(_cost)
"""

# An asynchronous wrapper counts after its wait, and together with it.
COUNT_OR_RETURN: Final = """
if _position is not None:
    _span.cost += _clock() - _now
    return _position
{count}
"""

# The transactions that events on success will join are looked at before the call: a function that
# commits by itself shows then.
ENLIST: Final = """
{value}
_tickets.append({enlist}(_transaction))
"""

# An event in a transaction leaves its span behind, which is no less true if it is rolled back.
# While the fields are read, nothing that they may load makes a session flush.
JOINED: Final = """
_hushed = {ticket}.hush()
try:
    {fields}
finally:
    _hushed()
{span}
{join}
"""

JOIN: Final = """
{ticket}.{join}({span}{head}, {moment})
"""

# An asynchronous wrapper awaits the joins that have to be, and counts them then.
COUNT_UNLESS_JOINING: Final = """
if _span.joining is not None:
    _span.cost += _clock() - _now
else:
    {count}
"""

UNSPANNED: Final = f"_span.flags & {~SPAN}"

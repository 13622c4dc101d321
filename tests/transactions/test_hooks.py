"""No hook of sidelight raises into the commit, the rollback or the close of its caller.

Each function below the hooks is made to raise in turn, while the caller ends its transaction in
each way. Its work is done as without sidelight; no event is false, and each missing event is
counted.
"""

import contextlib
import importlib
import inspect
import pkgutil

import pytest
from tests.support.business import CASES, committed
from tests.support.pairs import each_nth
from tests.support.proving import lost
from tests.transactions.test_iff_committed import Changed

import sidelight
from sidelight import transactions

#: What counts the events of a hook that has failed.
COUNTING = {
    *("doubt", "lose", "_lose", "refuse", "fail", "forget", "clear", "ended"),
    *("_forget_transaction", "Chain.add"),
}
#: The hooks themselves, and look-ups in a dictionary.
HOOKS = {"_exchange", "exchange", "command", "_events", "_is_clean", "_flush", "_is_sound"}


def _modules():
    for each in pkgutil.walk_packages(transactions.__path__, f"{transactions.__name__}."):
        if ".outbox" not in each.name:  # of the relay
            yield importlib.import_module(each.name)


def _insides():
    for module in _modules():
        own = [each for each in vars(module).values() if inspect.getmodule(each) is module]
        for part in (module, *filter(inspect.isclass, own)):
            for name, found in vars(part).items():
                is_own = inspect.isfunction(found) and inspect.getmodule(found) is module
                if is_own and not name.startswith("__") and not _is_exempt(found):
                    yield part, name


def _is_exempt(function):
    return {function.__name__, function.__qualname__} & (COUNTING | HOOKS)


INSIDES = sorted(_insides(), key=repr)


def commit(unit):
    with unit.savepoint():
        unit.execute("SELECT 1")
    unit.commit()


def roll_back_to_a_savepoint(unit):
    with contextlib.suppress(Changed), unit.savepoint():
        unit.execute("SELECT 1")
        raise Changed
    unit.commit()


def roll_back(unit):
    unit.execute("SELECT 1")
    unit.rollback()


def close(unit):
    unit.close()


COMMITS = {commit: True, roll_back_to_a_savepoint: True, roll_back: False, close: False}


@pytest.mark.one_in(2)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of a session that is broken
def test_the_work_is_done_whatever_fails_within(application, case, watched, url, monkeypatch, full):
    expected, seen, losses = set(), set(), lost()
    for way, commits in COMMITS.items():
        reached = set()

        def ended(number, patches, way=way, commits=commits):
            name = f"{way.__name__} {number}"
            with application.unit() as unit:
                application.order(unit.target, name)
                unit.flush()
                with monkeypatch.context() as patch:
                    for part, inside, replaced in patches:
                        patch.setattr(part, inside, replaced)
                    way(unit)
            if commits:
                expected.add(name)

        ended(0, [(*each, _noting(*each, reached)) for each in INSIDES])
        failing = each_nth(sorted(reached, key=repr), 3, case, CASES, full=full)
        for number, (part, inside) in enumerate(failing, 1):
            ended(number, [(part, inside, _failing)])
        seen |= reached
    assert committed(url) == expected
    assert len(seen) > 3, seen
    sidelight.flush(20)
    told = watched.stored_names()
    assert told <= expected
    assert len(expected - told) <= lost() - losses


def _noting(part, inside, reached):
    original = getattr(part, inside)

    def note(*arguments, **named):
        reached.add((part, inside))
        return original(*arguments, **named)

    return note


def _failing(*_, **__):
    raise RuntimeError("a defect")

"""The pytest plugin, in pytest sessions of its own."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

EMITTING = """
    import asyncio, pathlib, threading, time
    import pytest
    import sidelight
    from sidelight import arg, emits

    @emits("sold", artifact_id=arg.item, price=arg.price)
    def sell(item, price=1):
        return item

    @emits("packed", mode="awaited", artifact_id=arg.item)
    async def pack(item):
        return item

    @emits("weighed", weight=lambda item: 1 / 0)
    def weigh(item):
        return item

    STORE = pathlib.Path("events.db").resolve()

    def create_app():
        sidelight.configure(f"sqlite:///{STORE}", otlp=False)

    def stored():
        assert sidelight.flush(60)
        with sidelight.Store(f"sqlite:///{STORE}") as store:
            return [event.artifact_id for event in store.events()]
"""


@pytest.fixture
def session(tmp_path):
    """Run a test file in a pytest session, check the counts, and return the output."""

    def run(tests, *options, passed=0, failed=0, ini=""):
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{textwrap.dedent(ini)}")
        file = tmp_path / "test_it.py"
        file.write_text(textwrap.dedent(EMITTING) + textwrap.dedent(tests))
        state = tmp_path / "state"
        # Only what the tests need: other people's plugins are slow to load.
        plugins = ["sidelight.testing.pytest_plugin"]
        plugins += ["pytest_asyncio.plugin"] * ("asyncio" in ini)
        plugins += ["xdist"] * ("-n" in "".join(options))
        command = [sys.executable, "-m", "pytest", "-q", *(f"-p{name}" for name in plugins)]
        ran = subprocess.run(
            [*command, *options, str(file)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "XDG_STATE_HOME": str(state),
                "HOME": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        told = ran.stdout + ran.stderr
        for count, word in ((passed, "passed"), (failed, "failed")):
            assert (f"{count} {word}" in told) == bool(count), told
        assert not state.exists(), "something was written"
        return told

    return run


def test_the_fixture(session):
    session(
        """
        @pytest.fixture
        def sold():
            return sell("i0")

        def test_one(sold, sidelight_events):
            sell("i1", 3)
            assert sidelight_events.types == ["sold", "sold"]
            assert sidelight_events.one(artifact_id="i1").attributes == {"price": 3}

        async def test_two(sidelight_events):
            await asyncio.gather(pack("i1"), pack("i2"))
            assert len(sidelight_events.of("packed")) == 2
            sidelight_events.none("sold")

        def test_three(sidelight_events):
            assert len(sidelight_events) == 0
            sell("i1"); sidelight.emit("closed"); sell("i2")
            sidelight_events.in_order("sold", "closed", "sold")
        """,
        passed=3,
        ini="asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function",
    )


def test_what_fails_says_what_there_was(session):
    told = session(
        """
        def test_order(sidelight_events):
            sell("i1")
            sidelight_events.in_order("sold", "closed")

        def test_none(sidelight_events):
            sell("i1")
            sidelight_events.none("sold", artifact_id="i1")
        """,
        failed=2,
    )
    assert "no closed after sold; emitted:" in told
    assert "1 events match 'sold', artifact_id='i1'; emitted:" in told


def test_deterministic(session):
    session(
        """
        seen = []

        @pytest.mark.sidelight(deterministic=True)
        @pytest.mark.parametrize("n", range(2))
        def test_it(sidelight_events, n):
            sell("i1")
            seen.append(sidelight_events.events)
            assert seen[0] == seen[n]
        """,
        passed=2,
    )


def test_strict_is_the_default_even_without_the_fixture(session):
    told = session("def test_it(): weigh('i1')", failed=1)
    assert "field weight not captured" in told


def test_not_strict(session):
    tests = """
        def test_it(sidelight_events):
            weigh("i1")
            assert sidelight_events.losses == {"field weight not captured": 1}
    """
    session(tests, passed=1, ini="sidelight_strict = false")
    session("@pytest.mark.sidelight(strict=False)\n" + textwrap.dedent(tests), passed=1)


def test_a_session_that_configures_gets_what_it_asks_for(session):
    session(
        """
        @pytest.fixture(autouse=True, scope="session")
        def store(tmp_path_factory):
            url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'events.db'}"
            sidelight.configure(url, otlp=False)
            return url

        def test_it(store):
            sell("i1")
            assert sidelight.flush()
            with sidelight.Store(store) as opened:
                assert [event.artifact_id for event in opened.events()] == ["i1"]
            with pytest.raises(sidelight.SidelightError):
                weigh("i1")

        def test_caught_all_the_same(store, sidelight_events):
            sell("i2")
            assert sidelight_events.one("sold").artifact_id == "i2"
            with sidelight.Store(store) as opened:
                assert opened.size() == 1
        """,
        passed=2,
    )


def test_the_fixture_goes_on_whatever_the_application_configures(session):
    session(
        """
        @pytest.fixture
        def app():
            create_app()

        def test_before(app, sidelight_events):
            sell("i1")
            sidelight_events.one("sold")

        def test_after(sidelight_events, app):
            sell("i1")
            sidelight_events.one("sold")

        def test_inside(sidelight_events):
            create_app()
            thread = threading.Thread(target=sell, args=["i1"])
            thread.start(); thread.join()
            sidelight_events.one("sold")

        def test_capture():
            with sidelight.testing.capture() as recorded:
                create_app()
                sell("i1")
            recorded.one("sold")

        def test_mistakes_are_told(sidelight_events):
            with pytest.raises(sidelight.SidelightError, match="mysql is not supported"):
                sidelight.configure("mysql://host/shop")

        def test_nothing_has_left_a_test(sidelight_events):
            sell("i1")
            assert not STORE.exists()
            assert sidelight_events.types == ["sold"]

        def test_asked_for_late(request):
            create_app()
            events = request.getfixturevalue("sidelight_events")
            sell("i1")
            events.one("sold")
        """,
        passed=7,
    )


def test_a_configuration_ends_with_the_test_that_made_it(session):
    session(
        """
        def test_configured():
            create_app()
            sell("i1")
            assert stored() == ["i1"]

        def test_the_next_one():
            sell("i2")

        def test_nothing_came_after():
            create_app()
            assert stored() == ["i1"]
        """,
        passed=3,
    )


@pytest.mark.parametrize(
    "configured",
    ["create_app()", "pytest.fixture(autouse=True, scope='module')(create_app)"],
    ids=["module", "fixture"],
)
def test_a_configuration_of_several_tests_lasts(session, configured):
    session(
        f"""
    app = {configured}

    def test_one():
        sell("i1")

    def test_another_store(tmp_path):
        sidelight.configure(f"sqlite:///{{tmp_path}}/events.db", otlp=False)
        sell("i2")

    def test_recorded(sidelight_events):
        sell("i3")
        sidelight_events.one("sold", artifact_id="i3")

    def test_two():
        sell("i4")
        assert stored() == ["i1", "i4"]
        """,
        passed=4,
    )


def test_the_budget(session):
    tests = """
        class Slow:
            def __repr__(self):
                time.sleep(0.5)
                return "slow"

        def test_slow(sidelight_events):
            sell("i1", Slow())

        def test_quick(sidelight_events):
            for n in range(100):
                sell("i1", n)
    """
    told = session(tests, "--sidelight-budget=250ms", passed=1, failed=1)
    assert re.search(r"over the budget of emissions: test_it:sell: \d+ ms at p99.9 of 1 emi", told)
    session(tests, passed=2)
    session(tests, "--sidelight-budget", "5 s", passed=2)
    assert "is not a duration; write 10ms" in session(tests, "--sidelight-budget=soon")


def test_a_marker_that_is_misspelt(session):
    told = session(
        """
        @pytest.mark.sidelight(determinist=True)
        def test_it(sidelight_events): pass
        """
    )
    assert "the marker is sidelight(strict=True, deterministic=False)" in told


def test_in_parallel(session):
    session(
        """
        @pytest.mark.parametrize("n", range(20))
        def test_it(sidelight_events, n):
            sell(f"i{n}")
            assert sidelight_events.one().artifact_id == f"i{n}"
        """,
        *("-n", "2"),
        passed=20,
    )

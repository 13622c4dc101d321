"""The reference says what the code has, and all of it: both are compared, name by name."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib.metadata import entry_points
from typing import get_args

import pytest
import typer.main
from sqlalchemy.dialects import postgresql, sqlite
from tests.docs.pages import ROOT, every_page, names, page, rows

import sidelight
from sidelight.cli.app import app
from sidelight.cli.doctor.findings import REMEDIES, remedy_for
from sidelight.emission import emitter
from sidelight.emission.receipt import State
from sidelight.maps.declarations import MapPoint
from sidelight.otlp import endpoint
from sidelight.points import EVENT_PHASES
from sidelight.points.phases import _OUTCOMES as OUTCOME_OF
from sidelight.record import BUDGET_NS, values
from sidelight.record import format as format_
from sidelight.runtime import process
from sidelight.settings import settle
from sidelight.spool import header, quarantine, supply
from sidelight.store import OUTCOMES, schema, symbol
from sidelight.store.filters import EventFilters
from sidelight.store.opening import VERSION
from sidelight.testing import Recorded
from sidelight.transactions.entry import REASONS as NOT_JOINED

SOURCES = sorted((ROOT / "src" / "sidelight").rglob("*.py"))
EACH = pytest.mark.parametrize("page", every_page(), ids=lambda page: page.name)


def code():
    return "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)


def everything_written():
    return "\n".join(page.text for page in every_page())


def reference(name):
    return page(f"reference/{name}.md")


def parameters_of(function):
    """The names of a function's parameters, ``self`` and ``**kwargs`` excepted."""
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }


# -- names, arguments, settings ------------------------------------------------------------------


def test_every_public_name_is_documented():
    text = everything_written()
    for name in sidelight.__all__:
        assert re.search(rf"\b{re.escape(name)}\b", text), name


@pytest.mark.parametrize(
    ("function", "name", "heading"),
    [
        (sidelight.configure, "configuration", "configure"),
        (sidelight.emits, "decorator", "emits"),
    ],
)
def test_the_table_of_arguments_is_the_signature(function, name, heading):
    documented = names(reference(name).sections(r"`(\w+)`")[heading])
    fields = {"artifact_id", "organization_id"} if function is sidelight.emits else set()
    assert documented == parameters_of(function) | fields


@pytest.mark.parametrize(
    ("function", "heading"), [(sidelight.emits, "emits"), (sidelight.emit, "emit")]
)
def test_the_signature_that_the_page_writes_is_the_real_one(function, heading):
    section = reference("decorator").sections(r"`(\w+)`")[heading]
    (written,) = re.findall(rf"^`{heading}\((.+?)\)`", section, flags=re.MULTILINE)
    actual = [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}".replace("'", '"')
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    given = [part for part in written.split(", ") if part not in {"/", "*"}]
    assert [part for part in given if not part.startswith("**")] == actual


def test_defaults_are_the_documented_ones():
    text = reference("configuration").text
    defaults = inspect.signature(sidelight.configure).parameters
    assert f'`"{defaults["relay"].default}"`' in text
    assert settle().deadline == defaults["deadline"].default
    assert f"{defaults['deadline'].default:.3f}" in text
    assert f"{defaults['spool_limit'].default // 2**30} GiB" in text


def test_the_keys_of_a_map_are_the_documented_ones():
    documented = names(reference("map").sections(r"(A point)")["A point"])
    assert documented - {"choose", "cases", "otherwise", "false", '"scheduled"', '"awaited"'} == (
        MapPoint.model_fields.keys()
    )


def test_the_methods_of_a_store_are_the_documented_ones():
    documented = {}
    for row in rows(reference("store").sections(r"Reading it with `(\w+)`")["Store"]):
        if signature := re.fullmatch(r"`(\w+)\((.*)\)`", row[0]):
            documented[signature[1]] = set(re.findall(r"\w+", signature[2])) - {"filters"}
    actual = {
        name: parameters_of(method)
        for name, method in inspect.getmembers(sidelight.Store, inspect.isfunction)
        if not name.startswith("_") and name != "close"
    }
    assert documented == actual


def test_the_filters_of_questions_are_the_documented_ones():
    documented = names(reference("store").sections(r"(Filters)")["Filters"])
    assert documented >= EventFilters.__annotations__.keys()


def test_the_attributes_of_a_receipt_are_the_documented_ones():
    documented = {
        row[0].strip("`()")
        for row in rows(reference("decorator").sections(r"`(Receipt)`")["Receipt"])
    }
    assert documented == {name for name in dir(sidelight.Receipt) if not name.startswith("_")}


def test_the_outcomes_of_events_are_those_of_the_phases_that_have_an_event():
    """A generator that is closed early has a span with an outcome of its own, and no event."""
    assert {*OUTCOMES} == {OUTCOME_OF[each] for each in EVENT_PHASES} | {"emitted", "abandoned"}
    (outcome,) = (
        row[2] for row in rows(reference("store").text) if row[:2] == ["`outcome`", "TEXT"]
    )
    assert names(f"| {outcome} |\n") == {*OUTCOMES}
    told = {row[0].strip("`"): row[1] for row in rows(reference("cli").text) if len(row[0]) == 3}
    assert {sign: words.split()[0].strip(":") for sign, words in told.items()} == {
        symbol(each): each for each in OUTCOMES
    }


def test_the_states_of_a_receipt_are_the_documented_ones():
    states = {*get_args(State)}
    (state,) = (
        row[1]
        for row in rows(reference("decorator").sections(r"`(Receipt)`")["Receipt"])
        if row[0] == "`state`"
    )
    assert {*re.findall(r'`"(\w+)"`', state)} == states
    table = page("explanation/two-modes.md").sections("(States of a receipt)")
    assert {row[0].strip("`") for row in rows(table["States of a receipt"])} == states


def test_the_sinks_of_the_glossary_are_those_of_the_settings():
    settings = settle("sqlite:///x.db", stream="kafka://b/x", otlp=True)
    (sinks,) = (row[1] for row in rows(reference("glossary").text) if row[0] == "**sink**")
    assert names(f"| {sinks} |\n") == {*settings.sinks}


def test_what_the_pytest_fixture_offers_is_documented():
    text = page("how-to/testing.md").text
    for name in vars(Recorded):
        if not name.startswith("_") and name not in {"write", "append", "position", "records"}:
            assert re.search(rf"\b{name}\b", text), name


# -- the environment -----------------------------------------------------------------------------


def test_our_environment_variables_are_the_documented_ones():
    ours = re.compile(r"\bSIDELIGHT_[A-Z_]+\b")
    in_code, in_docs = set(ours.findall(code())), set(ours.findall(everything_written()))
    assert in_docs == in_code
    assert names(reference("configuration").sections(r"(sidelight's variables)").popitem()[1]) == (
        in_code
    )


def test_opentelemetrys_variables_are_known_and_documented():
    """sidelight reads some by name or by pattern; the SDK's exporters read the others."""
    read = set(re.findall(r"\bOTEL_[A-Z_{}a-z]*[A-Z}](?![\w{*])", code()))
    patterns = [re.compile(re.sub(r"\{\w+\}", "[A-Z_]+", name)) for name in read]
    variable = re.compile(r"\bOTEL_[A-Z_]*[A-Z](?![\w*])")
    for name in set(variable.findall(everything_written())):
        known = any(pattern.fullmatch(name) for pattern in patterns)
        assert known or name in exporters_variables(), name
    documented = set(variable.findall(reference("configuration").text))
    for pattern in patterns:
        assert any(pattern.fullmatch(name) for name in documented), pattern.pattern


def exporters_variables():
    from opentelemetry.sdk import environment_variables  # noqa: PLC0415

    return {
        value
        for name, value in vars(environment_variables).items()
        if name.startswith(("OTEL_EXPORTER_OTLP", "OTEL_METRIC_EXPORT"))
    }


# -- the command line ----------------------------------------------------------------------------


def below(group):
    """The commands of a group by their names, and those of its groups."""
    for name, command in group.commands.items():
        yield name, command
        if hasattr(command, "commands"):
            yield from ((f"{name} {last}", each) for last, each in below(command))


def commands():
    """Each command by its name, as the command line has it."""
    return dict(below(typer.main.get_command(app)))


def options_of(command):
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    } - {"--help", "-h"}


def documented_commands():
    return reference("cli").sections(r"`sidelight ([a-z]+(?: [a-z]+)?)")


def test_the_commands_are_the_documented_ones():
    assert documented_commands().keys() == commands().keys()


@pytest.mark.parametrize("name", commands())
def test_the_options_and_arguments_of_a_command_are_the_documented_ones(name):
    text, command = documented_commands()[name], commands()[name]
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*\b", text)) == options_of(command)
    for parameter in command.params:
        if parameter.param_type_name == "argument" and not hasattr(command, "commands"):
            shown = (parameter.metavar or parameter.name).strip("[]. …").upper()
            assert shown in text, f"{name}: {shown}"


@EACH
def test_the_commands_and_options_that_a_page_names_exist(page):
    known = {name: options_of(command) for name, command in commands().items()}
    shown = re.findall(r"`([^`]*)`", page.prose)
    shown += [
        line
        for b in page.blocks
        for line in b.text.splitlines()
        if b.language in {"console", "text"}
    ]
    for line in shown:
        for name, rest in re.findall(
            r"(?:^|\$ |-m |/|[A-Z]=\S+ )sidelight ([a-z]+)\b([^|&;]*)", line
        ):
            assert name in known, f"{page.name}: {line}"
            whole = f"{name} {rest.split()[0]}" if rest.split() else name
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest):
                assert option in known.get(whole, known[name]) | {"--help", "-h"}, (
                    f"{page.name}: {line}"
                )


def test_the_command_of_the_pages_is_installed():
    assert any(point.name == "sidelight" for point in entry_points(group="console_scripts"))


# -- the store -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "side"),
    [(sqlite.dialect(), 0), (postgresql.dialect(), -1)],
    ids=["SQLite", "PostgreSQL"],
)
def test_the_columns_and_their_types_are_the_documented_ones(dialect, side):
    """A type is written once, or as ``SQLite / PostgreSQL`` where the two differ."""
    documented = {
        (table, column.strip("`"), type_.split(" / ")[side].removesuffix(", nullable"), nullable)
        for table, text in reference("store").sections(r"`(\w+)`").items()
        for column, type_, nullable, _ in (
            (row[0], row[1].removesuffix(", nullable"), row[1].endswith(", nullable"), row[2])
            for row in rows(text)
        )
    }
    actual = {
        (
            table.name,
            column.name,
            column.type.compile(dialect=dialect).removesuffix(' COLLATE "C"'),
            bool(column.nullable),
        )
        for table in schema.metadata.sorted_tables
        for column in table.columns
    }
    assert documented == actual


def test_the_version_of_the_tables_is_the_documented_one():
    (row,) = rows(reference("store").sections(r"`(\w+)`")["sidelight_schema"])
    assert re.search(rf"\b{VERSION}\b", row[2])


# -- losses and the doctor -----------------------------------------------------------------------


def documented_reasons():
    sections = reference("losses").sections(
        r"(On the caller's path|In the relay|What may become a loss)"
    )
    return {name for text in sections.values() for name in names(text)}


def texts_in(path):
    """Every text in a module, with "…" where a value is put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def reasons_in(path):
    """The texts that a module gives as a reason to what counts losses and sets records aside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", "")).strip("_")
        if not re.fullmatch(r"lost|count(_\w+)?|(\w+_)?loss(es)?|quarantine", name):
            continue
        for given in node.args[:2]:
            text = ast.unparse(given).removeprefix("f").strip("'\"")
            reason = re.sub(r"\{.+?\}", "…", text)
            if isinstance(given, ast.Constant | ast.JoinedStr) and re.search("[a-z]{2}", reason):
                yield reason
                break
    source = path.read_text(encoding="utf-8")
    yield from re.findall(r"_lost\('([^']+)'", source)
    yield from re.findall(r"_losses\['([^']+)'\] =", source)


def test_every_reason_in_the_source_is_documented():
    for path in SOURCES:
        assert set(reasons_in(path)) <= documented_reasons(), path


def test_every_documented_reason_is_in_the_source():
    elsewhere = [path for path in SOURCES if path.stem != "findings"]
    said = "\n".join(text for path in elsewhere for text in texts_in(path))
    for reason in documented_reasons():
        for piece in reason.split("…"):
            assert piece.strip(" :") in said, reason


def test_the_doctor_knows_a_remedy_for_each_reason():
    assert documented_reasons() == REMEDIES.keys()
    for reason in documented_reasons():
        assert remedy_for(reason.replace("…", "something")) == REMEDIES[reason]
    assert remedy_for("something else") == ""


def test_the_reasons_not_to_join_are_the_documented_ones():
    section = reference("losses").sections(r"(Events that could not join)").popitem()[1]
    assert {row[0].strip("*") for row in rows(section)} == NOT_JOINED.keys()


def test_what_the_doctor_page_quotes_is_in_the_doctors_source():
    doctor = sorted((ROOT / "src/sidelight/cli/doctor").glob("*.py"))
    doctor += [ROOT / f"src/sidelight/{name}.py" for name in ("stream/problems", "host/platform")]
    said = {text for path in doctor for text in texts_in(path)}
    said |= {f"{reason}: …" for reason in REMEDIES}
    shown = re.findall(r"^\|[^|]+\| (\w+) \| (.+) \|$", reference("doctor").text, re.MULTILINE)
    assert len(shown) > 20
    for check, words in shown:
        assert check in {*said, "check"}
        for phrase in re.findall(r"`([^`]+)`", words):
            for piece in phrase.split("…"):
                assert any(piece.strip(" ,:") in each for each in said), phrase


# -- figures -------------------------------------------------------------------------------------

MIB = 1024 * 1024
FIGURES = [
    ("reference/values.md", "keeps {:,} characters", (values.MAX_TEXT,)),
    (
        "reference/values.md",
        "{} items, {} levels, {} values",
        (values.MAX_ITEMS, values.MAX_DEPTH, values.MAX_VALUES),
    ),
    ("reference/values.md", "A record holds {} KiB", (format_.MAX_PAYLOAD // 1024,)),
    (
        "explanation/the-budget.md",
        "more than {} ms {} times in a row",
        (values.MAX_REPR_NS // 10**6, ["", "once", "twice", "three"][values.MAX_SLOW_CALLS]),
    ),
    (
        "explanation/two-modes.md",
        "{:.0f} ms, of which {:.0f} ms are kept back",
        (emitter.DEADLINE * 1000, emitter.MARGIN * 1000),
    ),
    ("explanation/the-budget.md", "for {} ms at most", (BUDGET_NS // 10**6,)),
    (
        "reference/spool-format.md",
        "A segment has {} to {} MiB",
        (supply.SMALLEST // MIB, supply.LARGEST // MIB),
    ),
    ("reference/spool-format.md", "a header page of {:,} bytes", (header.PAGE,)),
    ("reference/spool-format.md", "version, 4 bytes: {}", (header.VERSION,)),
    ("reference/spool-format.md", "8 bytes each: {}", (", ".join(header.SLOTS),)),
    (
        "reference/losses.md",
        "{:,} entries or {} MiB for each sink",
        (quarantine.LIMIT, quarantine.LIMIT_BYTES // MIB),
    ),
    ("reference/configuration.md", "{:.0f} by default, ", (endpoint.TIMEOUT,)),
    (
        "how-to/containers-and-processes.md",
        "gives the relay up to {} s to deliver",
        (process.EXIT_WITHIN,),
    ),
]


@pytest.mark.parametrize(("name", "text", "numbers"), FIGURES, ids=[f[1] for f in FIGURES])
def test_a_figure_of_a_page_is_the_codes(name, text, numbers):
    assert text.format(*numbers) in page(name).text


def test_the_faults_of_the_tests_are_those_of_the_page():
    """Each number of the page stands once, and at least one test enters a row with it."""
    _, _, after = page("explanation/under-fault.md").text.partition("## The faults")
    told = [int(row[0]) for row in rows(after.partition("## ")[0])]
    assert told == [*range(1, len(told) + 1)]
    entered = re.compile(r"\b(?:row|settled)(?:\.of_receipts)?\(\s*(\d+),")
    tests = (ROOT / "tests" / "faults").glob("test_*.py")
    numbers = {int(each) for test in tests for each in entered.findall(test.read_text("utf-8"))}
    assert numbers - {0} == {*told}  # 0 is of the table's own test


# -- the costs -----------------------------------------------------------------------------------


def test_the_tables_of_costs_are_the_benchmarks(tmp_path):
    """README's tables have the columns and rows that ``python -m benchmarks --readme`` writes."""
    from benchmarks import report, whole_cost  # noqa: PLC0415

    text = report.README.read_text(encoding="utf-8")
    begin, end = report.MARKS
    calls, whole = text.partition(begin)[2].partition(end)[0].split("\n\n")
    assert {row[0] for row in rows(calls)} <= set(report.IN_README.values())
    assert [row[0] for row in rows(whole)] == list(whole_cost.SUBJECTS)
    for table in (calls, whole):
        numbers = [cell for row in rows(table) for cell in row[1:]]
        assert all(re.fullmatch(r"[\d.,]*|—", cell) for cell in numbers)


def test_every_benchmark_can_be_imported():
    """`make bench` and the pages name them; none is a part of the suite."""
    folder = ROOT / "benchmarks"
    paths = [path.relative_to(ROOT) for path in folder.rglob("*.py") if path.stem[0] != "_"]
    modules = [".".join(path.with_suffix("").parts) for path in paths]
    code = f"import importlib; [*map(importlib.import_module, {sorted(modules)})]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


def test_the_benchmarks_write_their_tables_into_a_readme(tmp_path):
    from benchmarks import ours, report, whole_cost  # noqa: PLC0415
    from benchmarks.floor import BARE  # noqa: PLC0415
    from benchmarks.peers import SPAN  # noqa: PLC0415
    from benchmarks.scenarios import PAUSING, TIGHT, Matrix  # noqa: PLC0415
    from benchmarks.stats import Measured  # noqa: PLC0415
    from benchmarks.timing import Samples  # noqa: PLC0415

    titles = {BARE: 100, f"{ours.title('scheduled')}, relay idle": 2000, SPAN: 10_000}
    cells = {title: Measured() for title in titles}
    for title, ns in titles.items():
        cells[title].rounds.append(Samples([ns] * 100, [50] * 100, None))
    costs = whole_cost.WholeCost(
        10, 1, {whole_cost.CALLER: whole_cost.Cost(2.21, 2.71, 17_000, 1.66, 12.6, 90)}
    )
    findings = report.Findings({}, (), Matrix({TIGHT: cells, PAUSING: cells}), whole=costs)
    page = tmp_path / "README.md"
    page.write_text("before\n" + "old\n".join(report.MARKS) + "\nafter\n", encoding="utf-8")
    report.into_readme(findings, page)
    written = page.read_text(encoding="utf-8")
    assert written.startswith(f"before\n{report.MARKS[0]}|")
    assert written.endswith(f"{report.MARKS[1]}\nafter\n")
    shown = [row for row in rows(written) if "÷ SDK span" not in row]
    assert [row[1:] for row in shown] == [
        ["0.10", "0.10", "", "", "0.10"],
        ["2.00", "2.00", "1", "0.2", "2.00"],
        ["10.0", "10.0", "5", "1", "10.0"],
        ["2.2", "2.7", "17,000", "1.7", "13", "90"],
    ]

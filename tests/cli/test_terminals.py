"""What every command prints on terminals of several widths, with and without colours, and piped."""

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from rich.color import Color
from tests.support.crafted import HEAD, moment, segment_in
from tests.support.simulated import records_of, simulate
from tests.support.stored import NOON, SECOND, batches_of, ledger, record, sqlite, store
from tests.support.terminals import ESCAPE, in_pipe, in_terminal, plain

from sidelight.cli import app, palette

LONG = [f"7d0c5f2e-0b1a-4d0e-8a77-5d5e0a1d000{n}" for n in range(3)]
OWNER = "northwind-traders-international"
TYPE = "entity_resolution_needs_disambiguation"
POINT = "voice_notes.actions.entity_resolutions:Resolver.resolve_entities"
REASON = "several-people-have-this-name and none of them is more likely than the others are"
LOOKS = {
    "colours": {"COLORTERM": "truecolor"},
    "NO_COLOR": {"NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store with names as long as people give them, its spool, and its quarantine."""
    path = tmp_path_factory.mktemp("named") / "events.db"
    url = f"sqlite:///{path}"
    lives = simulate(20)
    long = [
        record(
            type,
            NOON + (36_000 + n) * SECOND,
            artifact=artifact,
            organization=OWNER,
            duration=20 * SECOND * 60,
            point=POINT,
            attributes={"reason": REASON, "draft_id": artifact},
        )
        for n, artifact in enumerate(LONG)
        for type in (TYPE, f"{TYPE}_again")
    ]
    costs = {POINT: {"count": 3, "over": 0, "max": 123_456, "buckets": [[100, 3]]}}
    store(url, *batches_of(records_of(lives) + long, 100), [ledger(costs=costs)])
    path.with_name("sidelight.toml").write_text(
        f'[[expect]]\nafter = "{TYPE}"\none_of = ["never"]\nwithin = "1h"\n'
    )
    spool = path.with_name("events.db-spool")
    segment_in(spool, url)
    directory = spool / "quarantine"
    directory.mkdir(mode=0o700)
    payload = HEAD + moment(artifact_id=LONG[0])
    entry = {
        "kind": "record",
        "reason": "refused by store",
        "problem": REASON,
        "refused_by": "store",
        "sinks": ["store"],
        "at": NOON,
        "writer": {},
        "segment": "s",
        "offset": None,
        "payload": payload,
    }
    name = f"{zlib.crc32(payload):016x}-store.msgpack"
    (directory / name).write_bytes(msgspec.msgpack.encode(entry))
    return path


COMMANDS = {
    ("events",): [*LONG, OWNER, TYPE],
    ("events", "--failed"): [],
    ("artifacts",): [*LONG, OWNER],
    ("timeline", LONG[0]): [LONG[0], OWNER, TYPE],
    ("timeline", "a00003"): ["a00003", "transcription_started"],
    ("counts",): [OWNER, TYPE],
    ("counts", "--by", "type"): [TYPE, "received"],
    ("latency", TYPE, f"{TYPE}_again"): [],
    ("latency", TYPE, f"{TYPE}_again", "--by", "organization", "--by", "day", "--by", "point"): [
        *(OWNER, POINT)
    ],
    ("funnel", "received", "transcribed", "completed"): ["transcribed"],
    ("funnel", TYPE, f"{TYPE}_again"): [TYPE, f"{TYPE}_again"],
    ("budget",): [POINT],
    ("doctor",): [],
    ("spool",): [],
    ("spool", "quarantined"): ["crafted", LONG[0]],
    ("prune", "--older-than", "3650d", "--dry-run"): [],
    ("timeline", "none"): [],
    ("overdue", "--map", "{map}", "--since", "3650d"): [LONG[0], TYPE],
    ("overdue", "--map", "{map}"): [],
    ("erase", "--artifact", LONG[0], "--dry-run"): ["would be erased"],
    ("erase", "--organization", OWNER, "--dry-run"): ["would be erased"],
}
CODE = {
    ("catalogue", "voice_notes"): [TYPE, "voice_notes.entity_resolutions:store_resolutions"],
    ("points", "voice_notes"): [TYPE, "voice_notes.actions.claims_extraction"],
    ("--help",): ["timeline", "Delivery"],
    ("events", "--help"): ["--time-limit"],
    ("frobnicate",): ["frobnicate"],
    ("docs",): ["what-is-promised"],
    ("docs", "map-file"): ["there is no page map-file"],
}
HELP = {name for names in app._GROUPS.values() for name in names}
HELP -= {name for name, *_ in (*COMMANDS, *CODE)}
"""Commands that go on, that need a server, or that write: their help is looked at."""
CODE |= {(name, "--help"): [name] for name in sorted(HELP)}
NAMES = [*COMMANDS.values(), *CODE.values()]


def lines_of(path):
    of = ["--store", f"sqlite:///{path}"]
    names = {"map": path.with_name("sidelight.toml")}
    commands = ([word.format(**names) for word in command] for command in COMMANDS)
    return [*([*command, *of] for command in commands), *map(list, CODE)]


@pytest.fixture(scope="module")
def piped(path):
    return in_pipe(lines_of(path))


def test_a_pipe_gets_whole_rows_without_colours(path, piped):
    assert len(piped) == len(NAMES)
    for command, text in zip(lines_of(path), piped, strict=True):
        assert "\x1b" not in text, command
    text = dict(zip(COMMANDS, piped, strict=False))
    for command in (("events",), ("artifacts",)):
        rows = [line for line in text[command].splitlines() if OWNER in line]
        assert all(re.search("|".join(LONG), row) for row in rows)
    assert len(re.findall(f"{TYPE}.*{OWNER}.*reason={REASON}", text[("events",)])) == 6
    assert "…" not in "".join(text.values())
    assert in_pipe([["--help"]], GITHUB_ACTIONS="true") == [piped[NAMES.index(CODE[("--help",)])]]


@pytest.mark.parametrize(
    ("columns", "look"),
    [(80, "NO_COLOR"), (100, "colours"), (140, "dumb")],
)
def test_a_terminal(path, columns, look, piped):
    shown = in_terminal(lines_of(path), columns, **LOOKS[look])
    assert len(shown) == len(NAMES)
    for command, names, text, whole in zip(lines_of(path), NAMES, shown, piped, strict=True):
        assert "Traceback" not in text, text
        words = plain(text)
        for line in words.splitlines():
            # A path or an address that is longer than a line stays whole on stderr.
            assert cell_len(line) <= columns or " " not in line.strip(), (command, line)
        for name in names:
            assert name in words, (command, words)
        if "are cut at" not in words and not command[0].startswith("--") and command[0] not in HELP:
            missing = lost(whole, words)
            if command[0] in AGES:
                missing = {
                    word
                    for word in missing
                    if not re.fullmatch(r"[\d.]+|ns|µs|ms|s|min|h|d|just|now|ago", word)
                }
            assert not missing, (command, missing, words)
        codes = {code for code, _ in ESCAPE.findall(text)}
        if look == "dumb":
            assert not codes
        elif look == "NO_COLOR":
            assert codes <= {"0", "1"}, (command, codes)
        else:
            assert not codes - ALLOWED, (command, codes - ALLOWED)


@pytest.mark.parametrize("columns", [80, 140])
def test_wide_characters_and_the_longest_names_fit(tmp_path, columns):
    """⚠️ and 👩‍👩‍👧 take two columns, which the sum over their characters is not."""
    ids, longest, type = ["東京支店⚠️" * 9, "発送📦👩‍👩‍👧店舗" * 8], "t" * 128, "発注⚠️" * 12
    about = {"organization": "東京⚠️" * 20, "point": "店舗:処理⚠️" * 8, "duration": 20 * 60 * SECOND}
    events = [
        record(type, NOON + n * SECOND, artifact=id, attributes={"理由": "⚠️ 顧客📦 " * 9}, **about)
        for n, (id, type) in enumerate([(ids[0], longest), (ids[0], type), (ids[1], type)])
    ]
    costs = {about["point"]: {"count": 3, "over": 0, "max": 1, "buckets": [[100, 3]]}}
    store(url := sqlite(tmp_path), events, [ledger(costs=costs)])
    (tmp_path / "sidelight.toml").write_text(
        f'[[expect]]\nafter = "{type}"\none_of = ["{longest}"]\nwithin = "1h"\n'
    )
    overdue = ["overdue", "--since", "3650d", "--map", tmp_path / "sidelight.toml"]
    latency = ["latency", longest, type, "--by", "organization", "--by", "point"]
    commands = [
        *(["events"], ["artifacts"], ["counts"], ["budget"], ["doctor"], overdue, latency),
        *(["funnel", longest, type], ["timeline", ids[0]], ["timeline", ids[1]]),
        *(["timeline", f"{ids[0]} ⚠️ {ids[1]}"], ["erase", "--artifact", ids[0], "--dry-run"]),
    ]
    commands = [[*command, "--store", url] for command in commands]
    for command, text, whole in zip(
        commands, in_terminal(commands, columns), in_pipe(commands), strict=True
    ):
        words = plain(text)
        for line in words.splitlines():
            assert cell_len(line) <= columns or " " not in line.strip(), (command, line)
        for each in "支注":  # of the artifacts, of the types
            assert words.count(each) == whole.count(each), (command, words)


def lost(whole, words):
    """The words of a piped answer that a terminal does not show, however it breaks them."""
    packed = re.sub(r"\s", "", words)
    ignored = re.compile(r"^(?:[─━╺╸┄▸✓✗•]+|[╭│╰├└].*)$")
    return {word for word in whole.split() if not ignored.match(word) and word not in packed}


AGES = {"doctor", "artifacts", "latency", "spool", "overdue"}
"""The commands that tell how long ago something was: their numbers change by the second."""

COLOURS = {name: getattr(palette, name) for name in dir(palette) if name.isupper()}
COLOURS.pop("HELP")
NUMBERS = {name: int(re.fullmatch(r"color\((\d+)\)", each)[1]) for name, each in COLOURS.items()}
ALLOWED = {"0", "1", "39", *(f"{bold}38;5;{n}" for n in NUMBERS.values() for bold in ("", "1;"))}


def luminance(colour):
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (each / 255 for each in colour)
    ]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_is_readable_on_dark_and_on_light_backgrounds(name):
    """The ratio of WCAG for what is not small text is 3 : 1."""
    assert NUMBERS[name] >= 16, "the first 16 are another colour in each terminal"
    own = luminance(Color.parse(COLOURS[name]).get_truecolor())
    for background in ((0, 0, 0), (30, 30, 30), (255, 255, 255), (253, 246, 227)):
        other = luminance(background)
        assert (max(own, other) + 0.05) / (min(own, other) + 0.05) >= 3, background


@pytest.mark.parametrize("arguments", [["events"], ["events", "--json"], ["events", "--help"]])
def test_an_output_that_cannot_be_written_is_told_in_a_line(arguments, tmp_path):
    store(sqlite(tmp_path), [record()])
    command = [sys.executable, "-m", "sidelight", *arguments]
    env = {**os.environ, "SIDELIGHT_STORE": sqlite(tmp_path)}
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=env, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "the output cannot be written: No space left on device"
    assert "Traceback" not in ran.stderr

"""`sidelight catalogue`: document the event types that some code declares."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from sidelight.cli.code.reading import Modules, import_all, missing_modules
from sidelight.cli.options import AsJson
from sidelight.cli.output import (
    clean,
    complain,
    console,
    print_json,
    remark,
    stdout_kept_clean,
)
from sidelight.cli.palette import AMBER, CYAN, GREY
from sidelight.cli.tables import broken
from sidelight.points import POINTS
from sidelight.record import Declared
from sidelight.record import catalogue as declared_here
from sidelight.store import plural
from sidelight.stream import StreamAddress, asyncapi_document


def catalogue(
    modules: Modules = None,
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page of documentation.")
    ] = False,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the payloads as one JSON Schema.")
    ] = False,
    asyncapi: Annotated[
        bool,
        typer.Option("--asyncapi", help="Print an AsyncAPI 3 document of the stream's messages."),
    ] = False,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="SIDELIGHT_STREAM",
            help="Name these brokers and this topic in the AsyncAPI document.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Document the event types that some code declares: their payloads and their emitters.

    The command imports the modules, from the current directory too, as your program does.

    Examples:
      sidelight catalogue voice_notes

      sidelight catalogue voice_notes --markdown > docs/events.md

      sidelight catalogue voice_notes --asyncapi --stream kafka://b1:9092/notes
    """
    if not modules:
        raise missing_modules("catalogue")
    with stdout_kept_clean():
        problems = import_all(modules)
    found = list(declared_here)
    if json_schema:
        _write(declared_here.json_schema())
    elif asyncapi:
        title = f"Events of {', '.join(modules)}"
        _write(asyncapi_document(found, title, StreamAddress.parse(stream) if stream else None))
    elif markdown:
        sys.stdout.write("\n".join(_markdown(found)))
    elif as_json:
        print_json(_plain(each) for each in found)
    elif found:
        _print(found)
    elif not problems:
        remark(f"{', '.join(modules)}: nothing there declares an event type")
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(document, indent=2, ensure_ascii=False)}\n")


def emitters_of(declared: Declared) -> list[str]:
    """Return the functions that emit a type, by its declaration or by their decorators."""
    found = set(declared.emitted_by)
    for point in POINTS:
        emitted = (type_ for each in point.declarations for _, type_ in each.emitted)
        if declared.name in emitted:
            found.add(point.path)
    return sorted(found)


def payload_of(declared: Declared) -> list[tuple[str, str, str]]:
    """Return name, type and description of each value; a question mark marks an optional value."""
    schema = declared.payload.model_json_schema()
    required = schema.get("required", ())
    definitions = schema.get("$defs", {})
    return [
        (
            name if name in required else f"{name}?",
            _type_of(value, definitions),
            str(value.get("description", "")),
        )
        for name, value in schema.get("properties", {}).items()
    ]


def _type_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return a type of JSON Schema in a few characters."""
    if reference := schema.get("$ref"):
        return _type_of(definitions.get(str(reference).rpartition("/")[2], {}), definitions)
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " | ".join(json.dumps(choice) for choice in choices)
    if options := schema.get("anyOf"):
        return " | ".join(_type_of(option, definitions) for option in options)
    if schema.get("type") == "array":
        return f"array of {_type_of(schema.get('items', {}), definitions)}"
    return str(schema.get("format") or schema.get("type", "any"))


def _print(found: Sequence[Declared]) -> None:
    out = console()
    for each in found:
        out.print(Text(clean(each.name), style=f"bold {CYAN}"))
        lines = [Text(clean(each.description))] if each.description else []
        lines += [Text(clean(f"{name}: {kind}")) for name, kind, _ in payload_of(each)]
        emitters = emitters_of(each)
        lines += [Text(clean(f"emitted by {path}"), style=GREY) for path in emitters]
        if not emitters:
            lines.append(Text("emitted by no function", style=AMBER))
        for line in lines:
            for part in broken(line, out.width - 4):
                out.print(Text("    ").append(part), soft_wrap=True)
    remark(plural(len(found), "event type"))


def _markdown(found: Sequence[Declared]) -> list[str]:
    lines = ["# Events", ""]
    for each in found:
        lines += [f"## `{each.name}`", ""]
        if each.description:
            lines += [each.description, ""]
        if payload := payload_of(each):
            lines += ["| value | type | |", "|---|---|---|"]
            lines += [
                f"| `{name}` | {kind.replace('|', chr(92) + '|')} | {text} |"
                for name, kind, text in payload
            ]
            lines.append("")
        emitters = ", ".join(f"`{path}`" for path in emitters_of(each))
        lines += [f"Emitted by {emitters or 'no function'}.", ""]
    return lines


def _plain(declared: Declared) -> dict[str, Any]:
    return {
        "type": declared.name,
        "description": declared.description,
        "emitted_by": emitters_of(declared),
        "schema": declared.payload.model_json_schema(),
    }

"""A command line with typer: ``@emits`` stands between ``@app.command()`` and the function.

python counting.py up 3
"""

import typer

import sidelight
from sidelight import arg, emits

app = typer.Typer()


@app.callback()
def configure(store: str = "sqlite:///events.db") -> None:
    """Count, and leave events."""
    sidelight.configure(store)


@app.command()
@emits("counted", failure="not_counted", number=arg.number)
def up(number: int) -> None:
    """Count up to a number."""
    if number > 100:
        raise typer.BadParameter("100 at most")
    typer.echo(" ".join(map(str, range(1, number + 1))))


if __name__ == "__main__":
    app()

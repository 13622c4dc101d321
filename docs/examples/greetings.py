"""A command line with click: ``@emits`` stands below all of click's decorators.

python greetings.py bob
"""

import click

import sidelight
from sidelight import arg, emits


@click.command()
@click.argument("name")
@click.option("--times", default=1)
@emits("greeted", failure="not_greeted", artifact_id=arg.name, times=arg.times)
def greet(name: str, times: int) -> None:
    """Greet somebody."""
    if times < 1:
        raise click.UsageError("greet at least once")
    for _ in range(times):
        click.echo(f"hello {name}")


if __name__ == "__main__":
    sidelight.configure("sqlite:///events.db")
    greet()

"""The command line: answers in words, and in JSON for programs.

`store` asks the events store, `code` reads and writes decorators and maps, `spool`, `relay` and
`outbox` deliver, `doctor` names what is wrong and what helps. `app` lists the commands.
"""

from sidelight.cli.app import main

__all__ = ["main"]

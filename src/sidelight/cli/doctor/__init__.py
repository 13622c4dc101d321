"""`sidelight doctor`: name what is wrong while it lasts, and what helps.

Each module checks one part and yields findings: `store`, `directory` and `spool` (the place and its
content), `processes`, `backlog` (why records wait), `endpoints`. `command` runs and prints them.
"""

"""A map written into the code as decorators, and taken out of it again.

`writing` spells a decorator, `imports` edits the imports of a file, `trees` its decorators (with
LibCST, which keeps every other byte); `plan` decides what is to be done where, `files` does it.
"""

"""Commands that ask the store: one module for each question, and `prune`, which deletes.

To add a question, write a module with one function (the command) and list it in `cli.app`.
"""

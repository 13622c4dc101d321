"""Code read without importing it: which points are in there, which events it names.

`files` finds modules, `names` follows what names stand for, `values` reads what a decorator is
given, `points` finds the decorators.
"""

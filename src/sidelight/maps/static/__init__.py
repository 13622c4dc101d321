"""Code read without importing it: its points, and the event types that it names.

`modules` finds files, `names` follows names to their definitions, `arguments` reads the arguments
of a decorator, `decorated` finds decorators, `functions` finds the function of a path, and
`event_types` reads the catalogue.
"""

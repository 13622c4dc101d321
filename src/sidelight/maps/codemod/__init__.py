"""A map written into the code as decorators, and taken out of it again.

`edits` decides what changes in which file, and proves each change by reading the new text.
`decorator_source` spells a decorator, `bindings` finds the names that the decorator may use in its
module, `decorator_lines` and `import_lines` edit text, and `source_files` replaces files.
"""

"""A map written into the code as decorators, and taken out of it again.

`writing` spells a decorator, `decorators` and `imports` edit the text of a file, whose other bytes
stay as they are; `bindings` knows what things are called in it; `plan` decides what is to be done
where, and reads what would be written before `files` does it.
"""

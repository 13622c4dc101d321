"""Commands on the spool directory: its segments, and its quarantine.

`segments` reads the directory without locks. `quarantine` lists entries, `replay` delivers them.
"""

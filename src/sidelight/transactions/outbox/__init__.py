"""The outbox: the table in the caller's database where events lie until a relay moves them.

`table` defines it, `admin` creates it and shows its state; a relay takes rows out of it by
`postgres`, `sqlite` (with its `position`) or, where the events store is in the same database,
`same_database`.
"""

"""psycopg: an event joins the transaction of a `Connection` or an `AsyncConnection`.

psycopg has no events for the end of a transaction; `watch` reads it from the exchanges with the
server.
"""

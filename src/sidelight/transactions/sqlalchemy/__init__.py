"""SQLAlchemy: an event joins the transaction of a Session, a Connection or their async twins.

`sessions` hands an event to the session's connection, `connections` waits for its commit, and
`drivers` knows the differences between the drivers below.
"""

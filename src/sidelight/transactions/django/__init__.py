"""Django: an event joins the transaction of a database, by its alias.

`databases` hands an event to the database's connection, `watch` reads from the statements how its
transactions end, and `state` asks the connection what is open.
"""

"""Actions on the outside world. Each one is awaited, and none uses the database."""

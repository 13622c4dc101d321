"""A year of events in one store: how fast it fills, answers and is pruned, and in what memory."""

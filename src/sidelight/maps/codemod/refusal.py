"""Why a point of a map cannot be written into the code."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818  # it becomes a MapError, with its place
    """A point cannot be written."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

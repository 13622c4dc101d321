"""Values that run a function when they are read."""


class Bites(BaseException):
    """An error that `except Exception` does not catch."""


class Thing:
    """A value whose property and `repr` run a function."""

    def __init__(self, act):
        self.act = act

    @property
    def name(self):
        return self.act()

    def __repr__(self):
        return self.act()


def raises(error):
    """Make a function that raises this error."""

    def act():
        raise error

    return act

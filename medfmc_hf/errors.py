"""The one exception that a user's mistake raises."""


class MedfmcError(ValueError):
    """A mistake that the user can mend: the message says what came, what was expected and what to do.

    The command line prints it without a traceback and exits with status 2.
    """

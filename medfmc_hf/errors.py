"""The exception for mistakes of users."""


class MedfmcError(ValueError):
    """A mistake that the user can fix: the message says what was given, what was expected and what to do.

    The command line prints it without a traceback and exits with status 2.
    """

"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """Bad input, told in one line: what was wrong, the value seen, what is allowed, the cure.

    The command line prints the message and exits with 1; a traceback is never shown for it.
    """

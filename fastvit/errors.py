"""The one exception that means: the person can fix this."""


class UserError(ValueError):
    """A mistake in what was asked or in the files given; the message says what was wrong and what to do.

    The command line prints it as one line and exits with 2; a library caller sees an ordinary ValueError.
    """

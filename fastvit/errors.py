"""The one exception that means: the person can fix this; and the words of other exceptions in it."""


class UserError(ValueError):
    """A mistake in what was asked or in the files given; the message says what was wrong and what to do.

    The command line prints it as one line and exits with 2; a library caller sees an ordinary ValueError.
    """


class DamagedImageError(UserError):
    """An image that cannot be decoded; the message names it."""


def first_line(error: BaseException) -> str:
    """What another library's exception says, short enough for one line of ours."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__

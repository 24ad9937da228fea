"""Exceptions for errors that the user can fix, and helpers for their messages."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """Error in an argument, option or file that the user can fix; the message contains the fix.

    The command line prints it on one line and exits with status 2. In Python it is a ValueError.
    """


class UnreadableImageError(UserError):
    """Unreadable or corrupt image; the message contains its name."""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's exception, or the name of its class if it has no text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def unknown_name(
    kind: str, name: str, known: Iterable[str], spellings: Iterable[str] = (), otherwise: str = ""
) -> UserError:
    """Return the error for a name that does not exist: the nearest names, and a list of all.

    Args:
        kind: what the name should stand for, such as "export target".
        name: the name that was given.
        known: all names, in the order in which they are listed.
        spellings: other forms of these names that are accepted, and are not listed.
        otherwise: alternatives to a name, which follow the list.
    """
    names = list(known)
    near = near_names(name, [*names, *spellings])
    meant = f": did you mean {' or '.join(near)}? Choose from " if near else "; choose from "
    return UserError(f"unknown {kind} {name!r}{meant}{', '.join(names)}{otherwise}")


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that are spelled almost like this one, the nearest first, at most three."""
    import difflib

    spelled = {_plain(each): each for each in known}
    return [spelled[near] for near in difflib.get_close_matches(_plain(name), spelled, n=3, cutoff=0.6)]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")

"""Addresses of studies that are kept outside of their folder, for those who only read them."""

from pathlib import Path

JOURNAL = "journal:"
"""What the address of a journal begins with; the path of its file follows."""


def absolute_storage(url: object, folder: Path) -> object:
    """Make the path of a journal absolute, which is to be found from any folder.

    Args:
        url: An address, or what may be none and is returned as it is.
        folder: Where a relative path begins.

    Example:
        >>> absolute_storage("journal:trials.log", Path("/runs"))
        'journal:/runs/trials.log'
        >>> absolute_storage("mysql://me@host/trials", Path("/runs"))
        'mysql://me@host/trials'
    """
    if not isinstance(url, str) or not url.removeprefix(JOURNAL) or not url.startswith(JOURNAL):
        return url
    return JOURNAL + str(folder / url.removeprefix(JOURNAL))

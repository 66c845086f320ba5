"""Which parts of a model share a choice, by globs on their names."""

import re
from collections.abc import Hashable, Sequence


def tied_sets(names: Sequence[str], ties: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Find which names share a choice.

    A tie of one glob ties all names that match it. In a tie of several globs,
    names are tied where the wildcards of their globs stand for the same text.
    Sets that have a name in common are one set.

    Args:
        names: Names that have a choice.
        ties: Ties, each a list of globs.

    Returns:
        Sets of at least two names; sets and names in the order of `names`.

    Example:
        >>> names = ["0.query", "0.key", "1.query", "1.key", "fc"]
        >>> tied_sets(names, [["*.query", "*.key"]])
        (('0.query', '0.key'), ('1.query', '1.key'))
        >>> tied_sets(names, [["?.*"]])
        (('0.query', '0.key', '1.query', '1.key'),)
    """
    set_of = {name: {name} for name in names}
    for globs in ties:
        patterns = [re.compile(_pattern(glob), re.DOTALL) for glob in globs]
        met: dict[Hashable, str] = {}
        for name in names:
            found = next((m for p in patterns if (m := p.fullmatch(name))), None)
            if found is None:
                continue
            first = met.setdefault(found.groups() if len(globs) > 1 else (), name)
            joined = set_of[first] | set_of[name]
            set_of.update(dict.fromkeys(joined, joined))
    sets = dict.fromkeys(tuple(n for n in names if n in set_of[name]) for name in names)
    return tuple(found for found in sets if len(found) > 1)


def _pattern(glob: str) -> str:
    """Translate a glob into a pattern that captures what each wildcard stands for."""
    pieces = re.findall(r"\*|\?|\[!?\]?[^\]]*\]|.", glob, re.DOTALL)
    return "".join(_piece(piece) for piece in pieces)


def _piece(piece: str) -> str:
    if piece == "*":
        return "(.*)"
    if piece == "?":
        return "(.)"
    if len(piece) > 1:
        inside = piece[1:-1].replace("\\", r"\\")
        negated = inside.startswith("!")
        inside = inside.removeprefix("!")
        inside = rf"\{inside}" if inside.startswith(("^", "]")) else inside
        return f"([{'^' * negated}{inside}])"
    return re.escape(piece)

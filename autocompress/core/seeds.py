"""Randomness by purpose: every draw derives from (seed, trial slot, purpose)."""

import hashlib

from autocompress.errors import InvalidInputError, check_type, explain


def derive_seed(seed: int, slot: int, purpose: str) -> int:
    """Derive an independent seed for one purpose of one trial slot.

    A retried trial keeps its slot, so it repeats the same draws.

    Args:
        seed: The seed of the run.
        slot: The trial slot, 0 and up; -1 for draws that belong to no trial.
        purpose: What the randomness is for, for example "fine-tune".

    Returns:
        An integer in [0, 2**31).

    Example:
        >>> derive_seed(0, 3, "sample") == derive_seed(0, 3, "sample")
        True
        >>> derive_seed(0, 3, "sample") == derive_seed(0, 4, "sample")
        False
    """
    digest = hashlib.sha256(f"{seed}/{slot}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def check_seed(seed: int) -> None:
    """Refuse a seed that generators do not take.

    Raises:
        WrongTypeError: If it is no whole number.
        InvalidInputError: If it is negative.
    """
    if check_type("'seed'", seed, int) < 0:
        raise InvalidInputError(
            explain("'seed'", expected=">= 0", got=seed, remedy="choose another one")
        )

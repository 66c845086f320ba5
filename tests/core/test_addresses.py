from pathlib import Path

import pytest

from autocompress.core.addresses import absolute_storage


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("journal:trials.log", "journal:/runs/trials.log"),
        ("journal:a/b.log", "journal:/runs/a/b.log"),
        ("journal:/mnt/trials.log", "journal:/mnt/trials.log"),
        ("journal:", "journal:"),
        ("postgresql://me@host/trials", "postgresql://me@host/trials"),
        (None, None),
        (3, 3),
    ],
)
def test_journals_alone_become_absolute(url: object, found: object) -> None:
    assert absolute_storage(url, Path("/runs")) == found

from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from autocompress.core.files import read_json, write_atomic, write_bytes, write_json, write_text
from autocompress.errors import InvalidInputError, MissingFileError, StorageError


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True], "b": {"ü": "text"}}
    write_json(tmp_path / "new" / "folder" / "file.json", content)
    assert read_json(tmp_path / "new" / "folder" / "file.json") == content


def test_bytes_and_text_come_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bytes", b"\x00\xff")
    write_text(tmp_path / "text", "é\n")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_text(encoding="utf-8") == "é\n"


def test_an_interrupted_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def stop_halfway(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, stop_halfway)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_storage_error_with_a_remedy(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device; free some space"):
        write_atomic(tmp_path / "file", fail)
    assert list(tmp_path.iterdir()) == []


def test_what_safetensors_says_of_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    with pytest.raises(StorageError, match="No space left on device"):
        write_atomic(tmp_path / "file", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="move what is in its way or choose another"):
        write_text(tmp_path / "file" / "below", "text")


@pytest.mark.parametrize("content", [float("nan"), [float("inf")], {"a": object()}])
def test_what_json_cannot_hold_is_refused_and_nothing_written(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected plain JSON"):
        write_json(tmp_path / "file.json", content)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.json"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"", b"[1e999]"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match="expected JSON"):
        read_json(tmp_path / "bad.json")

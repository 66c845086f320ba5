import pytest

from autocompress.core.schema import SCHEMA_VERSION, check_record, unknown_name
from autocompress.errors import InvalidInputError, WrongTypeError


def test_a_record_loses_its_version_and_keeps_the_rest() -> None:
    record = {"schema_version": SCHEMA_VERSION, "a": 1}
    assert check_record(record, what="thing", keys=("a", "b")) == {"a": 1}


def test_a_record_without_a_version_is_read_as_the_current_one() -> None:
    assert check_record({"b": 2}, what="thing", keys=("a", "b")) == {"b": 2}


@pytest.mark.parametrize("record", [None, [], "text", 3])
def test_what_is_no_object_is_refused(record: object) -> None:
    with pytest.raises(WrongTypeError, match="thing: expected an object"):
        check_record(record, what="thing", keys=())


def test_an_unknown_key_is_refused_with_the_closest_one() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'weight_bits'"):
        check_record({"weight_bit": 8}, what="layer", keys=("weight_bits", "sparsity"))


def test_another_schema_version_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="use the version of autocompress that wrote it"):
        check_record({"schema_version": SCHEMA_VERSION + 1}, what="thing", keys=())


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InvalidInputError, match="thing, key 'a': expected a value, got none"):
        check_record({}, what="thing", keys=("a",), required=("a",))


def test_a_name_far_from_all_known_ones_gets_the_list() -> None:
    message = unknown_name("space", "zzz", ["cnn", "mlp"])
    assert message == "space: expected one of 'cnn', 'mlp', got 'zzz'; choose one of them."

import pytest

from autocompress.core.quantisation import QuantisationConfig
from autocompress.errors import InvalidInputError, WrongTypeError


def test_a_configuration_is_read_from_a_mapping() -> None:
    assert QuantisationConfig.from_mapping({}) == QuantisationConfig()
    read = QuantisationConfig.from_mapping({"observer": "minmax", "share_joins": True})
    assert (read.observer, read.share_joins, read.rounding) == ("minmax", True, "gptq")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"observer": "minmix"}, InvalidInputError, "did you mean 'minmax'"),
        ({"rounding": "adaround"}, InvalidInputError, "'gptq'"),
        ({"sensitivity": "hesian"}, InvalidInputError, "did you mean 'hessian'"),
        ({"join_bits": 1}, InvalidInputError, "2 to 8"),
        ({"share_joins": 1}, WrongTypeError, "'share_joins'"),
        ({"observers": "mse"}, InvalidInputError, "did you mean 'observer'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    values: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        QuantisationConfig.from_mapping(values)

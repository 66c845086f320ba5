import numpy as np
import pytest

from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError, WrongTypeError


@pytest.mark.parametrize("stages", [2, 3, 5, 10])
def test_the_cubic_curve_is_that_of_zhu_and_gupta(stages: int) -> None:
    shares = TrainingConfig(schedule="gradual", stages=stages).cut_shares()
    final, begin = 0.8, 0.0
    step = np.arange(1, stages + 1)
    published = final + (begin - final) * (1.0 - step / stages) ** 3
    np.testing.assert_allclose(final * np.array(shares), published)
    assert shares[-1] == 1.0


def test_the_curve_by_hand() -> None:
    assert TrainingConfig().cut_shares() == (1.0,)
    assert TrainingConfig(schedule="gradual", stages=2).cut_shares() == (0.875, 1.0)
    assert TrainingConfig(schedule="iterative").cut_shares() == (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "gradual"])
@pytest.mark.parametrize("stages", [2, 7])
def test_stages_share_all_the_images(schedule: str, stages: int) -> None:
    config = TrainingConfig(schedule=schedule, stages=stages)
    shares = config.image_shares()
    assert len(shares) == len(config.cut_shares())
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.0
    if schedule == "gradual":
        assert shares[-1] == 0.5


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"schedule": "gradul"}, InvalidInputError, "did you mean 'gradual'"),
        ({"stages": 1}, InvalidInputError, "2 to 100"),
        ({"stages": 2.5}, WrongTypeError, "'stages'"),
        ({"rewind": 1}, WrongTypeError, "'rewind'"),
        ({"norm_l1": "0.1", "schedule": "gradual"}, WrongTypeError, "'norm_l1'"),
        ({"norm_l1": -1.0, "schedule": "gradual"}, InvalidInputError, ">= 0"),
        ({"group_lasso": float("nan"), "schedule": "gradual"}, InvalidInputError, ">= 0"),
        ({"group_lasso": 0.1}, InvalidInputError, "choose the schedule"),
        ({"stage": 3}, InvalidInputError, "did you mean 'stages'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    values: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TrainingConfig.from_mapping(values)

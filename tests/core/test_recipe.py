import pytest

from autocompress.core.recipe import Recipe
from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError, WrongTypeError


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"optimiser": "adam"}, InvalidInputError, "did you mean 'adamw'"),
        ({"curve": "linear"}, InvalidInputError, "one-cycle"),
        ({"learning_rate": 0.0}, InvalidInputError, "'learning_rate'"),
        ({"learning_rate": "0.1"}, WrongTypeError, "'learning_rate'"),
        ({"momentum": 1.0}, InvalidInputError, "< 1"),
        ({"ema": 1.0}, InvalidInputError, "'ema'"),
        ({"clip_norm": float("inf")}, InvalidInputError, "'clip_norm'"),
        ({"accumulate": 0}, InvalidInputError, ">= 1"),
        ({"patience": -1}, InvalidInputError, ">= 0"),
        ({"low_precision": 1}, WrongTypeError, "'low_precision'"),
        ({"optimizer": "sgd"}, InvalidInputError, "did you mean 'optimiser'"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(
    values: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Recipe.from_mapping(values)


def test_each_optimiser_has_its_own_rate() -> None:
    assert Recipe().peak == 0.02
    assert Recipe(optimiser="adamw").peak == 0.001
    assert Recipe(optimiser="adamw", learning_rate=0.3).peak == 0.3


def test_a_recipe_is_part_of_a_training() -> None:
    training = TrainingConfig.from_mapping({"recipe": {"ema": 0.99}, "elastic": True})
    assert training.recipe == Recipe(ema=0.99)
    assert training.elastic == "on"
    with pytest.raises(WrongTypeError, match="recipe"):
        TrainingConfig.from_mapping({"recipe": 3})

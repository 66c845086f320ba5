from dataclasses import asdict
from typing import Any

from autocompress.core.candidate import DistillConfig
from autocompress.core.recipe import Recipe
from autocompress.core.training import TrainingConfig
from autocompress.report.training import lesson_table, training_words


def lesson(kind: str, accuracy: float | None, **distill: Any) -> dict[str, Any]:
    """A lesson as the ledger keeps it."""
    failure = {"failure": "the loss is not finite"} if accuracy is None else {}
    setting = asdict(DistillConfig(**distill))
    return {"kind": kind, "distill": setting, "accuracy": accuracy, "seconds": 1.0, **failure}


LESSONS = [
    lesson("low-bit", 0.861, temperature=2.83, kd_weight=0.5),
    lesson("pruned", 0.9, temperature=2.83, kd_weight=0.5),
    lesson("low-bit", 0.8725, temperature=1.3663, kd_weight=0.8),
]


def test_lessons_are_grouped_by_kind_and_the_best_is_taken() -> None:
    assert lesson_table(LESSONS) == [
        ["kind", "temperature", "kd_weight", "accuracy on val (%)", "outcome"],
        ["low-bit", "2.83", "0.5", "86.10", ""],
        ["low-bit", "1.37", "0.8", "87.25", "finalists take it"],
        ["pruned", "2.83", "0.5", "90.00", ""],  # alone it teaches nothing
    ]


def test_the_feature_weight_is_a_column_where_it_varies() -> None:
    same, other = ({"method": "attention", "feature_weight": weight} for weight in (0.5, 1.0))
    fixed = lesson_table([lesson("8-bit", 0.9, **same), lesson("8-bit", 0.8, **same)])
    assert "feature_weight" not in fixed[0]
    heads, *rows = lesson_table([lesson("8-bit", 0.9, **same), lesson("8-bit", 0.8, **other)])
    assert [row[heads.index("feature_weight")] for row in rows] == ["0.5", "1"]


def test_a_lesson_that_failed_says_why_and_is_not_taken() -> None:
    *_, failed = lesson_table([*LESSONS, lesson("pruned", None), lesson("pruned", 0.8)])[:-1]
    assert failed[-2:] == ["", "failed: the loss is not finite"]


def test_without_lessons_there_is_no_table() -> None:
    assert lesson_table([]) == []


def test_only_what_differs_from_the_defaults_is_said_of_a_training() -> None:
    assert training_words(asdict(TrainingConfig())) == training_words({}) == ""
    changed = TrainingConfig(
        teacher="assistant", teach="last", quantise="after", recipe=Recipe(low_precision=False)
    )
    words = "teacher: assistant, teach: last, quantise: after, low_precision: false"
    assert training_words(asdict(changed)) == words
    assert training_words({}, teachers=2) == "further teachers: 2"


def test_no_key_of_a_recipe_is_one_of_the_training() -> None:
    assert not set(asdict(Recipe())) & set(asdict(TrainingConfig()))

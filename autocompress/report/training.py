"""How a study trained, for the report: its settings, and the distillations it compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autocompress.controller.lessons import best_lessons
from autocompress.core.candidate import DistillConfig
from autocompress.core.training import TrainingConfig


def training_words(kept: Mapping[str, Any], teachers: int = 0) -> str:
    """Say what of a training differs from the defaults, as a configuration writes it.

    Args:
        kept: The training as the study keeps it; what is left out has its default.
        teachers: How many teachers there are beside the original.

    Returns:
        One line; "" where nothing differs.

    Example:
        >>> training_words({"teacher": "self", "recipe": {"optimiser": "adamw", "ema": 0.0}})
        'teacher: self, optimiser: adamw'
    """
    known, defaults = _flat(kept), _flat(asdict(TrainingConfig()))
    changed = {n: known[n] for n, value in defaults.items() if known.get(n, value) != value}
    if teachers:
        changed["further teachers"] = teachers
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in changed.items())


def distillation_words(distill: DistillConfig) -> str:
    """Say how a candidate is taught.

    Example:
        >>> distillation_words(DistillConfig(method="attention", feature_weight=0.5))
        'temperature 4, kd_weight 0.9, attention with feature_weight 0.5'
        >>> distillation_words(DistillConfig())
        'temperature 4, kd_weight 0.9'
    """
    words = f"temperature {distill.temperature:.3g}, kd_weight {distill.kd_weight:.3g}"
    if distill.feature_weight == 0.0:
        return words
    return f"{words}, {distill.method} with feature_weight {distill.feature_weight:.3g}"


def lesson_table(lessons: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Lay out the distillations that were compared, one kind of candidates after the other.

    Args:
        lessons: Trainings in their order, each with "kind", "distill" and
            "accuracy" on `val`; None for one that failed, with its "failure".

    Returns:
        The heads, then a row per training; nothing where there was none.
    """
    kinds = list(dict.fromkeys(str(lesson["kind"]) for lesson in lessons))
    weights = {lesson["distill"]["feature_weight"] for lesson in lessons}
    names = ["temperature", "kd_weight", *(["feature_weight"] if len(weights) > 1 else [])]
    taken = best_lessons(lessons)
    rows = []
    for lesson in sorted(lessons, key=lambda lesson: kinds.index(lesson["kind"])):
        setting, accuracy = DistillConfig(**lesson["distill"]), lesson["accuracy"]
        outcome = "finalists take it" if taken.get(lesson["kind"]) == setting else ""
        rows.append(
            [
                lesson["kind"],
                *(f"{getattr(setting, name):.3g}" for name in names),
                "" if accuracy is None else f"{100 * accuracy:.2f}",
                f"failed: {lesson['failure']}" if accuracy is None else outcome,
            ]
        )
    return [["kind", *names, "accuracy on val (%)", "outcome"], *rows] if rows else []


def _flat(training: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the recipe's keys beside the others; none of them is the same."""
    return {k: v for k, v in training.items() if k != "recipe"} | dict(training.get("recipe", {}))

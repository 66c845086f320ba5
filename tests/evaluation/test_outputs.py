import pytest
import torch
from torch.nn import functional

from autocompress.evaluation.distillation import distillation_loss
from autocompress.evaluation.outputs import CLASSES, INDEPENDENT, VALUES, OutputForm


@pytest.mark.parametrize(
    ("shape", "targets", "kind", "axis"),
    [
        ((4, 3), torch.tensor([0, 1, 2, 0]), CLASSES, -1),
        ((4, 3), None, CLASSES, -1),
        ((4, 3), {"boxes": torch.zeros(4)}, CLASSES, -1),
        ((4, 3), torch.full((4, 3), 1 / 3), CLASSES, -1),
        ((4, 3), torch.tensor([[1.0, 1.0, 0.0]] * 4), INDEPENDENT, -1),
        ((4, 3), torch.tensor([[1, 0, 0]] * 3 + [[0, 0, 0]]), INDEPENDENT, -1),
        ((4, 3), torch.randn(4, 3), VALUES, -1),
        ((4, 1), torch.tensor([0, 1, 1, 0]), INDEPENDENT, -1),
        ((4, 1), torch.tensor([[0.0], [1.0], [1.0], [1.0]]), INDEPENDENT, -1),
        ((4, 1), torch.tensor([0.5, 2.0, -1.0, 3.0]), VALUES, -1),
        ((4, 1), None, VALUES, -1),
        ((4,), torch.tensor([0.0, 1.0, 1.0, 1.0]), INDEPENDENT, -1),
        ((4, 3, 6, 5), torch.zeros(4, 6, 5, dtype=torch.long), CLASSES, 1),
        ((4, 3, 6, 5), None, CLASSES, 1),
        ((4, 6, 3), torch.zeros(4, 6, dtype=torch.long), CLASSES, -1),
        ((4, 3, 6), torch.zeros(4, 6, dtype=torch.long), CLASSES, 1),
        ((4, 6, 3), None, CLASSES, -1),
        ((4, 3, 6), torch.full((4, 3, 6), 1 / 3), CLASSES, 1),
        ((4, 3), (torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 0]), 0.4), CLASSES, -1),
        ((4, 1), (torch.tensor([0.0, 1.0, 1.0, 0.0]), 0.4), INDEPENDENT, -1),
        ((2, 1, 2, 2), torch.tensor([[[0, 1], [255, 1]]] * 2), INDEPENDENT, -1),
        ((4, 2), torch.tensor([0.5, 2.0, -1.0, 3.0]), VALUES, -1),
        ((4, 8, 2, 2), torch.zeros(4, 8, 4, dtype=torch.long), CLASSES, 1),
    ],
)
def test_the_form_is_told_by_the_targets(
    shape: tuple[int, ...], targets: object, kind: str, axis: int
) -> None:
    assert OutputForm.of(torch.randn(shape), targets) == OutputForm(kind=kind, axis=axis)


@pytest.mark.parametrize("axis", [1, -1])
def test_positions_count_like_examples(axis: int) -> None:
    one, other = torch.randn(20, 5), torch.randn(20, 5)
    expected = distillation_loss(one, other, 3.0)
    placed = [x.reshape(2, 10, 5) for x in (one, other)]
    if axis == 1:
        placed = [x.movedim(2, 1) for x in placed]
    form = OutputForm(axis=axis)
    torch.testing.assert_close(distillation_loss(placed[0], placed[1], 3.0, form), expected)


def test_logits_of_their_own_are_compared_as_two_classes() -> None:
    one, other = torch.randn(6, 3), torch.randn(6, 3)
    pairs = [torch.stack([x.flatten(), torch.zeros(18)], dim=1) for x in (one, other)]
    expected = distillation_loss(pairs[0], pairs[1], 2.0)
    form = OutputForm(kind=INDEPENDENT)
    torch.testing.assert_close(distillation_loss(one, other, 2.0, form), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_numbers_are_compared_by_their_squared_difference(temperature: float) -> None:
    student, teachers = torch.randn(6, 1), [torch.randn(6, 1) for _ in range(3)]
    expected = functional.mse_loss(student, torch.stack(teachers).mean(dim=0))
    form = OutputForm(kind=VALUES)
    torch.testing.assert_close(distillation_loss(student, teachers, temperature, form), expected)


@pytest.mark.parametrize("kind", [CLASSES, INDEPENDENT, VALUES])
def test_what_says_the_same_does_not_diverge(kind: str) -> None:
    form, outputs = OutputForm(kind=kind), torch.randn(6, 3)
    said = form.describe(outputs)
    assert float(form.divergence(said, said)) == pytest.approx(0.0, abs=1e-7)
    assert float(form.divergence(said, form.describe(-outputs))) > 0.1
    assert form.mean([said]) is said
    torch.testing.assert_close(form.mean([said, said]), said)

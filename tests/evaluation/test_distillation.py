import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from autocompress.evaluation.distillation import (
    attention_loss,
    distillation_loss,
    hint_loss,
    relation_loss,
)


def test_several_teachers_speak_with_their_mean_probabilities() -> None:
    student, teachers = torch.randn(6, 5), [2 * torch.randn(6, 5) for _ in range(3)]
    temperature = 3.0
    p = np.mean([softmax(t.double().numpy() / temperature, axis=1) for t in teachers], axis=0)
    q = softmax(student.double().numpy() / temperature, axis=1)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert float(distillation_loss(student, teachers, temperature)) == pytest.approx(
        expected, rel=1e-5
    )
    alone = distillation_loss(student, teachers[:1], temperature)
    assert torch.equal(alone, distillation_loss(student, teachers[0], temperature))


def test_hints_are_half_the_mean_squared_difference() -> None:
    one, other = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    total = sum(
        (a - b) ** 2 for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
    )
    assert float(hint_loss(one, other)) == pytest.approx(0.5 * total / 60, rel=1e-5)


def test_attention_is_compared_as_maps_of_length_one() -> None:
    student, teacher = torch.randn(3, 7, 4), torch.randn(3, 7, 6)
    losses = []
    for one, other in zip(student.double().numpy(), teacher.double().numpy(), strict=True):
        maps = [np.array([np.mean(row**2) for row in features]) for features in (one, other)]
        lengths = [math.sqrt((row**2).sum()) for row in maps]
        losses.append(((maps[0] / lengths[0] - maps[1] / lengths[1]) ** 2).sum())
    assert float(attention_loss(student, teacher)) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(attention_loss(teacher, 3.0 * teacher)) == pytest.approx(0.0, abs=1e-9)


def _huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_relations_are_distances_and_angles() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    tables = []
    for rows in (student.double().numpy(), teacher.double().numpy()):
        n = len(rows)
        distance = np.array([[np.linalg.norm(a - b) for b in rows] for a in rows])
        distance /= distance[~np.eye(n, dtype=bool)].mean()
        angles = np.zeros((n, n, n))
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    one, other = rows[i] - rows[j], rows[k] - rows[j]
                    lengths = np.linalg.norm(one) * np.linalg.norm(other)
                    angles[i, j, k] = one @ other / lengths if lengths else 0.0
        tables.append((distance, angles.transpose(0, 2, 1)))
    (d1, a1), (d2, a2) = tables
    expected = np.mean([_huber(e) for e in (d1 - d2).ravel()])
    expected += 2 * np.mean([_huber(e) for e in (a1 - a2).ravel()])
    assert float(relation_loss(student, teacher)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [attention_loss, relation_loss, hint_loss])
def test_equal_features_have_no_loss_and_finite_gradients(loss) -> None:  # type: ignore[no-untyped-def]
    features = torch.randn(4, 6) if loss is relation_loss else torch.randn(4, 5, 6)
    features[0] = features[1]
    features.requires_grad_(True)
    value = loss(features, features.detach())
    value.backward()
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-8)
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())


def test_relations_are_compared_in_float32_whatever_is_around() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    expected = relation_loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relation_loss(student, teacher), expected)

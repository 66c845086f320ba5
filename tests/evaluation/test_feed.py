from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from autocompress.evaluation import feed as feed_module
from autocompress.evaluation.feed import Feed


def seed_of(epoch: int) -> int:
    return 7 + epoch


class Augmented:
    """Five batches of two in random order, with noise that is drawn as they are read."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(10).split(2):
            yield index + torch.randn(2), index


def test_a_feed_goes_on_where_it_was_in_any_epoch() -> None:
    loader = DataLoader(TensorDataset(torch.arange(10.0), torch.arange(10)), 2, shuffle=True)
    for batches in (Augmented(), loader):
        for stop in (1, 4, 5, 8):
            feed = Feed(batches, "cpu", seed_of)
            stream = iter(feed)
            for _ in range(stop):
                next(stream)
                torch.randn(3)  # as dropout draws
            position = feed.position()
            expected = [(x, y, torch.randn(1)) for x, y in islice(stream, 7)]
            torch.manual_seed(99)
            other = Feed(batches, "cpu", seed_of)
            other.go_to(position)
            found = [(x, y, torch.randn(1)) for x, y in islice(iter(other), 7)]
            for one, two in zip(expected, found, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)), stop


def test_an_epoch_is_drawn_from_its_seed_alone() -> None:
    workers = DataLoader(TensorDataset(torch.arange(10.0), torch.arange(10)), 2, shuffle=True)
    for batches in (Augmented(), workers):
        epochs = []
        for _ in range(2):
            torch.rand(len(epochs) + 1)  # the training's own draws differ
            stream = iter(Feed(batches, "cpu", lambda epoch: epoch % 2))
            epochs += [[next(stream)[0] for _ in range(5)] for _ in range(3)]
        assert all(map(torch.equal, epochs[0], epochs[2]))
        assert all(map(torch.equal, epochs[0], epochs[3]))
        assert not all(map(torch.equal, epochs[0], epochs[1]))


def test_a_loader_leaves_the_random_state_of_the_training_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for _ in islice(Feed(Augmented(), "cpu", seed_of), 7):
        pass
    assert torch.equal(torch.rand(2), expected)


def test_an_empty_loader_ends_the_feed() -> None:
    assert list(Feed([], "cpu", seed_of)) == []


def test_the_random_state_of_a_device_goes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.zeros(1, dtype=torch.uint8)  # counts what was drawn on the device

    def restore(kept: Tensor, device: str) -> None:
        assert device == "cuda:1"
        state.copy_(kept)

    monkeypatch.setattr(feed_module, "place", lambda batch, _: batch)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: state.clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", restore)
    feed = Feed(Augmented(), "cuda:1", seed_of)
    for _ in islice(iter(feed), 7):
        state += 1
    position = feed.position()
    state.zero_()
    other = Feed(Augmented(), "cuda:1", seed_of)
    other.go_to(position)
    next(iter(other))
    assert int(state) == 7
    on_the_cpu = Feed(Augmented(), "cpu", seed_of)
    state.zero_()
    on_the_cpu.go_to(position)
    next(iter(on_the_cpu))
    assert int(state) == 0

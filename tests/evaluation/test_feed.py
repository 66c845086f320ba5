from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from autocompress.evaluation import feed as feed_module
from autocompress.evaluation.answers import fingerprint
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
    numbers = TensorDataset(torch.arange(10.0), torch.arange(10))
    loaders = [DataLoader(numbers, 2, shuffle=True, num_workers=count) for count in (0, 1)]
    for batches in (Augmented(), *loaders):
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


class Device:
    """Stands in for the random state of a CUDA device: a CPU generator of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generator = torch.Generator()
        on_the_cpu = torch.Generator
        monkeypatch.setattr(feed_module, "place", lambda batch, _: batch)
        monkeypatch.setattr(torch, "Generator", lambda *_: on_the_cpu())
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: self.generator.get_state())
        monkeypatch.setattr(
            torch.cuda, "set_rng_state", lambda kept, _: self.generator.set_state(kept)
        )

    def draw(self) -> Tensor:
        return torch.rand(1, generator=self.generator)


def test_loaders_may_draw_on_the_device_and_go_on_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)

    class Loader:
        def __iter__(self) -> Iterator[Tensor]:
            for index in torch.randperm(10, generator=device.generator).split(2):
                yield index + device.draw()

    feed = Feed(Loader(), "cuda:1", seed_of)
    stream = iter(feed)
    for _ in range(7):
        next(stream)
        device.draw()  # as dropout does
    position = feed.position()
    expected = [(batch, device.draw()) for batch in islice(stream, 6)]
    device.generator.manual_seed(99)
    other = Feed(Loader(), "cuda:1", seed_of)
    other.go_to(position)
    found = [(batch, device.draw()) for batch in islice(iter(other), 6)]
    for one, two in zip(expected, found, strict=True):
        assert all(map(torch.equal, one, two))
    kept_on_a_cpu = {name: t for name, t in position.items() if name != feed_module.DEVICE}
    third = Feed(Augmented(), "cuda:1", seed_of)
    third.go_to(kept_on_a_cpu)
    next(iter(third))
    fourth = Feed(Augmented(), "cpu", seed_of)
    fourth.go_to(position)
    next(iter(fourth))


def test_batches_are_marked_where_that_is_asked_for() -> None:
    plain, marked = (
        Feed(Augmented(), "cpu", seed_of),
        Feed(Augmented(), "cpu", seed_of, marked=True),
    )
    for one, two in islice(zip(plain, marked, strict=True), 7):
        assert plain.mark is None
        assert marked.mark == fingerprint(one) == fingerprint(two)

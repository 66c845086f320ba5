"""The task: data in three splits, and how outputs become a loss and a metric."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.errors import AutocompressError, InvalidInputError, WrongTypeError, explain
from autocompress.evaluation.outputs import OutputForm
from autocompress.graph.inputs import one_line

Batch = Any
Loss = Callable[[Tensor, Any], Tensor]
Metric = Callable[[Tensor, Any], Tensor]
Forward = Callable[[nn.Module, Batch], Any]

LABEL_KEYS = ("labels", "label", "targets", "target")
"""Keys of a dict batch that hold the targets."""


class Task:
    """Data and measures of what a model is for.

    A batch is `(inputs..., targets)`, `(mapping of inputs, targets)`, or a mapping with the
    targets under "labels" (or "label", "targets", "target") and the inputs under the names of
    the model's arguments. Batches of `train` may lack targets, as a tensor, `(inputs,)` or such
    a mapping, if nothing is learned from labels. Loaders are iterated again and again, so they
    must be re-iterable: a list or a `DataLoader`, not a generator.

    Args:
        train: Batches that train; augmented and shuffled as the user likes.
        val: Batches that guide the search and every choice.
        test: Batches that are only reported; None splits `val` in half.
        loss: `loss(outputs, targets)` -> scalar; None is cross-entropy.
        metric: "top1", or `metric(outputs, targets)` -> scores in [0, 1], one
            per example or their mean.
        forward: `forward(model, batch)` -> outputs; None calls the model on
            the batch's inputs.

    Raises:
        WrongTypeError: If a loader cannot be iterated again.
        InvalidInputError: If `metric` is an unknown name.
    """

    def __init__(
        self,
        train: Iterable[Batch],
        val: Iterable[Batch],
        test: Iterable[Batch] | None = None,
        loss: Loss | None = None,
        metric: str | Metric = "top1",
        forward: Forward | None = None,
    ) -> None:
        for name, loader in (("train", train), ("val", val), ("test", test)):
            if loader is not None:
                _check_loader(name, loader)
        if isinstance(metric, str) and metric != "top1":
            raise InvalidInputError(
                explain(
                    "'metric'",
                    expected="'top1' or a callable",
                    got=repr(metric),
                    remedy="pass a callable",
                )
            )
        self.train = train
        self.val = val
        self.test = test
        self._loss = loss
        self._metric = metric
        self._forward = forward
        self._form: OutputForm | None = None

    def __repr__(self) -> str:
        """Name the splits with their batches, as far as these can be counted."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        sizes = [f"{name}={_size(loader)}" for name, loader in splits.items()]
        return f"Task({', '.join(sizes)})"

    def with_train(self, train: Iterable[Batch]) -> "Task":
        """Return the same task with other training batches."""
        return Task(train, self.val, self.test, self._loss, self._metric, self._forward)

    def with_test(self, val: Iterable[Batch], test: Iterable[Batch]) -> "Task":
        """Return the same task with other batches that guide and report."""
        return Task(self.train, val, test, self._loss, self._metric, self._forward)

    def run(self, model: nn.Module, batch: Batch) -> Tensor:
        """Call a model on one batch and return its outputs as a tensor.

        Outputs with `.logits`, or under the key "logits", are unpacked.
        """
        if self._forward is not None:
            outputs = self._forward(model, batch)
        else:
            args, kwargs = inputs_of(batch)
            outputs = model(*args, **kwargs)
        if isinstance(outputs, Mapping) and "logits" in outputs:
            outputs = outputs["logits"]
        outputs = getattr(outputs, "logits", outputs)
        if not isinstance(outputs, Tensor):
            raise WrongTypeError(
                explain(
                    "model output",
                    expected="a tensor, or an object with .logits",
                    got=type(outputs).__name__,
                    remedy="pass forward= to Task",
                )
            )
        return outputs

    def arguments(self, model: nn.Module, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what a model is called with on one batch, by position and by name.

        Raises:
            InvalidInputError: If `forward` fails, or does not call the model itself.
        """
        if self._forward is None:
            return inputs_of(batch)
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        handle = model.register_forward_pre_hook(
            lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        try:
            with torch.no_grad():
                self._forward(model, batch)
        except AutocompressError:
            raise
        except Exception as error:
            raise InvalidInputError(
                explain(
                    "'forward'",
                    expected="a call of the model on a batch",
                    got=one_line(error),
                    remedy="write forward(model, batch) for the batches of the loaders",
                )
            ) from error
        finally:
            handle.remove()
        if not calls:
            raise InvalidInputError(
                explain(
                    "'forward'",
                    expected="a call of the model",
                    got="none",
                    remedy="write forward(model, batch) so that it calls model(...)",
                )
            )
        return calls[0]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the scalar training loss of one batch."""
        targets = targets_of(batch)
        if self._loss is not None:
            value = self._loss(outputs, targets)
            if not isinstance(value, Tensor) or value.dim() > 0:
                raise InvalidInputError(
                    explain(
                        "'loss'",
                        expected="a scalar tensor",
                        got=tuple(value.shape) if isinstance(value, Tensor) else repr(value),
                        remedy="return the mean over the batch",
                    )
                )
            return value
        self._check_classes(outputs, targets)
        return F.cross_entropy(outputs.float(), targets)

    def form(self, outputs: Tensor, batch: Batch) -> OutputForm:
        """Return what outputs stand for, as the first batch with targets shows that is asked about.

        Until then, it is what can be told without any.
        """
        if self._form is None and self._loss is None:
            self._form = OutputForm()  # what `cross_entropy` of class indices takes
        elif self._form is None and has_targets(batch):
            self._form = OutputForm.of(outputs, targets_of(batch))
        return self._form or OutputForm.of(outputs)

    def loss_on(self, batches: Iterable[Batch]) -> Callable[[Tensor, Batch], Tensor] | None:
        """Return `loss`, or None if some batch has no targets."""
        return self.loss if all(map(has_targets, batches)) else None

    def score(self, outputs: Tensor, batch: Batch) -> tuple[float, int]:
        """Score one batch.

        Returns:
            The sum of the examples' scores, and the number of examples.
        """
        targets = targets_of(batch)
        count = len(outputs)
        if callable(self._metric):
            scores = self._metric(outputs, targets)
            scores = torch.as_tensor(scores, dtype=torch.float64)
            if not bool(((scores >= 0) & (scores <= 1)).all()):
                raise InvalidInputError(
                    explain(
                        "'metric'",
                        expected="scores in [0, 1]",
                        got=f"{float(scores.min()):g} to {float(scores.max()):g}",
                        remedy="return fractions, the larger the better",
                    )
                )
            if scores.dim() and scores.numel() != count:
                raise InvalidInputError(
                    explain(
                        "'metric'",
                        expected=f"one score for each of {count} examples, or their mean",
                        got=f"scores of shape {list(scores.shape)}",
                        remedy="average over the labels or positions of each example",
                    )
                )
            return float(scores.sum() if scores.dim() else scores * count), count
        self._check_classes(outputs, targets)
        return float((outputs.argmax(dim=1) == targets).sum()), count

    def commonest(self, batches: Iterable[Batch]) -> float | None:
        """Return the accuracy of always answering the commonest class; None but for "top1"."""
        if callable(self._metric):
            return None
        classes = torch.cat([targets_of(batch).cpu() for batch in batches])
        _, often = torch.unique(classes, return_counts=True)
        return float(often.max()) / len(classes)

    @staticmethod
    def _check_classes(outputs: Tensor, targets: Any) -> None:
        fits = (
            isinstance(targets, Tensor)
            and targets.dim() == 1
            and outputs.dim() == 2
            and len(targets) == len(outputs)
        )
        if not fits:
            shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise InvalidInputError(
                explain(
                    "batch",
                    expected=f"one class index for each of {len(outputs)} outputs",
                    got=f"outputs {tuple(outputs.shape)} and targets {shape}",
                    remedy="pass loss= and metric= to Task",
                )
            )
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[1]:
            raise InvalidInputError(
                explain(
                    "targets",
                    expected=f"class indices in [0, {outputs.shape[1]})",
                    got=f"{int(targets.min())} to {int(targets.max())}",
                    remedy="check the labels and the model's last layer",
                )
            )


def warn_of_guessing(accuracy: float, commonest: float | None, examples: int) -> str:
    """Say so where an accuracy is not clearly more than always answering the commonest class has.

    Args:
        accuracy: A fraction.
        commonest: From `Task.commonest`.
        examples: On how many both were found; two standard errors count as nothing.

    Returns:
        The words, or "" where the accuracy is higher, there is one class only, or nobody knows.

    Example:
        >>> print(warn_of_guessing(0.11, 0.1, 500))
        hardly more than always answering the commonest class has: 10.0 %; check its weights
        >>> warn_of_guessing(0.2, 0.1, 500), warn_of_guessing(0.0, None, 500)
        ('', '')
    """
    if commonest is None or commonest == 1.0:
        return ""
    if accuracy > commonest + 2.0 * (commonest * (1.0 - commonest) / examples) ** 0.5:
        return ""
    less = "hardly more" if accuracy > commonest else "no more"
    share = f"{100.0 * commonest:.1f} %"
    return f"{less} than always answering the commonest class has: {share}; check its weights"


def inputs_of(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split the inputs off a batch, as positional and keyword arguments."""
    if isinstance(batch, Mapping):
        return (), {key: value for key, value in batch.items() if key not in LABEL_KEYS}
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, (tuple, list)) and batch:
        args = tuple(batch if len(batch) == 1 else batch[:-1])
        if len(args) == 1 and isinstance(args[0], Mapping):
            return (), dict(args[0])
        return args, {}
    raise WrongTypeError(
        explain(
            "batch",
            expected="(inputs, targets) or a mapping with 'labels'",
            got=type(batch).__name__,
            remedy="wrap the loader, or pass forward= to Task",
        )
    )


def targets_of(batch: Batch) -> Any:
    """Return the targets of a batch."""
    if isinstance(batch, Mapping):
        for key in LABEL_KEYS:
            if key in batch:
                return batch[key]
        raise InvalidInputError(
            explain(
                "batch",
                expected=f"one of the keys {', '.join(LABEL_KEYS)}",
                got=", ".join(map(str, batch)),
                remedy="rename the key of the targets",
            )
        )
    if not has_targets(batch):
        raise InvalidInputError(
            explain(
                "batch",
                expected="inputs and targets",
                got="inputs alone",
                remedy="give targets, or learn from the teacher alone, with kd_weight 1",
            )
        )
    return batch[-1]


def has_targets(batch: Batch) -> bool:
    """Tell whether a batch has targets.

    Example:
        >>> has_targets({"x": torch.zeros(2)}), has_targets((torch.zeros(2), torch.zeros(2)))
        (False, True)
    """
    if isinstance(batch, Mapping):
        return any(key in batch for key in LABEL_KEYS)
    return isinstance(batch, (tuple, list)) and len(batch) > 1


def _size(loader: Iterable[Batch] | None) -> str:
    if loader is None:
        return "None"
    try:
        count = len(loader)  # type: ignore[arg-type]
    except TypeError:  # as a DataLoader of a stream says
        return type(loader).__name__
    return f"{count} batch" if count == 1 else f"{count} batches"


def _check_loader(name: str, loader: object) -> None:
    if not isinstance(loader, Iterable):
        raise WrongTypeError(
            explain(
                f"task '{name}'",
                expected="an iterable of batches",
                got=type(loader).__name__,
                remedy="pass a DataLoader or a list of batches",
            )
        )
    if isinstance(loader, Iterator):
        raise WrongTypeError(
            explain(
                f"task '{name}'",
                expected="batches that can be iterated again",
                got=f"a {type(loader).__name__}, which is used up after one pass",
                remedy="pass a DataLoader or a list of batches",
            )
        )

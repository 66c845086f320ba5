"""Compress a Hugging Face text encoder that takes a dictionary of inputs.

    python examples/transformers_encoder.py --model PATH_OR_NAME --texts texts.csv

loads a trained classifier, its tokenizer and a CSV with the columns "text" and "label".
`--smoke` takes a tiny BERT with random weights and random tokens, and two trials.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import autocompress as ac

Batch = tuple[dict[str, Tensor], Tensor]


class Texts:
    """Re-iterable batches of ({"input_ids", "attention_mask"}, labels)."""

    def __init__(self, inputs: dict[str, Tensor], labels: Tensor, size: int = 32) -> None:
        self.inputs, self.labels, self.size = inputs, labels, size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches in order."""
        for index in torch.arange(len(self.labels)).split(self.size):
            yield {name: values[index] for name, values in self.inputs.items()}, self.labels[index]


def split(inputs: dict[str, Tensor], labels: Tensor, seed: int = 0) -> ac.Task:
    """Make a task: six tenths train, two validate, two test."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ends = [int(0.6 * len(order)), int(0.8 * len(order))]
    parts = [
        Texts({name: values[index] for name, values in inputs.items()}, labels[index])
        for index in torch.tensor_split(order, ends)
    ]
    return ac.Task(train=parts[0], val=parts[1], test=parts[2])


def random_parts() -> tuple[nn.Module, ac.Task]:
    """Make a tiny BERT, and tokens whose first one tells the label."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        attn_implementation="eager",
    )
    tokens = torch.randint(2, 64, (320, 16))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return BertForSequenceClassification(config).eval(), split(inputs, tokens[:, 0] % 2)


def real_parts(name: str, rows: Iterable[dict[str, str]]) -> tuple[nn.Module, ac.Task]:
    """Load a trained classifier, and tokenise texts for it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(name, attn_implementation="eager")
    found = list(rows)
    encode = AutoTokenizer.from_pretrained(name)
    encoded = encode(
        [row["text"] for row in found], padding="max_length", truncation=True, max_length=128
    )
    inputs = {key: torch.tensor(encoded[key]) for key in ("input_ids", "attention_mask")}
    return model.eval(), split(inputs, torch.tensor([int(row["label"]) for row in found]))


def main() -> None:
    """Search, and print the front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name or folder that transformers loads")
    parser.add_argument("--texts", type=Path, help="a CSV with the columns text and label")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--study-dir", default="runs/encoder")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model, two trials")
    options = parser.parse_args()
    if options.smoke:
        options.trials, options.minutes = 2, 1
        model, task = random_parts()
    elif options.model is None or options.texts is None:
        parser.error("--model and --texts are needed, or --smoke")
    else:
        with options.texts.open(encoding="utf-8", newline="") as file:
            model, task = real_parts(options.model, csv.DictReader(file))
    result = ac.search(
        model,
        task,
        space="bert",
        objectives=("accuracy", "latency_ms", "size_bytes"),
        budget=ac.Budget(trials=options.trials, minutes=options.minutes),
        study_dir=options.study_dir,
    )
    for member in result.front:
        print(member)


if __name__ == "__main__":
    main()

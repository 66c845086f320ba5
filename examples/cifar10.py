"""Compress a trained CIFAR-10 ResNet, and compare the pick with plain int8.

    python examples/cifar10.py --data cifar10_jpeg.npz --weights resnet56.safetensors --depth 56

Prints the front, the member that `best()` picks on `val` under a latency limit,
and its difference from plain int8 on `test` with a paired 95 % interval.
`--smoke` runs on random images and weights, in a minute.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import autocompress as ac
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model


def main() -> None:
    """Search, and print what was found."""
    options = _options()
    model = make_model(8 if options.smoke else options.depth)
    if options.smoke:
        task = make_random_task()
    else:
        model.load_state_dict(load_file(options.weights))
        task = make_task(options.data)
    constraints = {"accuracy_drop": 1.0 if options.smoke else options.accuracy_drop}
    if options.limit is not None:
        percent = options.limit.endswith("%")
        constraints["latency_ms"] = options.limit if percent else float(options.limit)
    result = ac.search(
        model,
        task,
        target=ac.Target.named("onnxruntime-cpu", threads=1),
        objectives=("accuracy", "latency_ms"),
        constraints=constraints,
        budget=ac.Budget(
            trials=options.trials, minutes=options.minutes, finalists=options.finalists
        ),
        study_dir=options.study_dir,
        seed=options.seed,
    )
    int8 = next(m for m in result.members if m.measured["origin"] == "plain int8")
    print(f"{'id':>6} {'val %':>7} {'test %':>7} {'ms':>7} {'x int8':>7}  origin")
    for member in (int8, *(m for m in result.front if m.id != int8.id)):
        measured = member.measured
        print(
            f"{member.id:>6} {100 * measured['val_accuracy']:7.2f}"
            f" {100 * measured['accuracy']:7.2f} {measured['latency_ms']:7.3f}"
            f" {_ratio(member, int8):7.3f}  {measured['origin']}"
        )
    limit = options.latency * int8.measured["latency_ms"]
    try:
        pick = result.best(latency_ms=limit)
    except ac.InvalidInputError as error:
        raise SystemExit(f"no pick: {error}") from error
    found = {"pick": pick.id, "latency_ratio": _ratio(pick, int8)} | paired(
        task, pick.path, int8.path
    )
    print(
        f"best(latency_ms={limit:.4f}) is {pick.id}: {found['latency_ratio']:.3f} of plain int8's "
        f"latency, {found['points']:+.2f} points on test, "
        f"95 % interval {found['low']:+.2f} to {found['high']:+.2f}"
    )
    (result.study_dir / "pick.json").write_text(json.dumps(found, indent=2))


def paired(task: ac.Task, path: Path, other: Path) -> dict[str, float]:
    """Compare two files on the same test images, in points of accuracy.

    The interval is that of the mean of paired differences, each -1, 0 or 1.
    """
    right = []
    for file in (path, other):
        runtime = ac.RuntimeModule(file, threads=torch.get_num_threads())
        hits = [runtime(images).argmax(1) == labels for images, labels in task.test or ()]
        right.append(torch.cat(hits).double().numpy())
    difference = 100 * (right[0] - right[1])
    spread = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
    mean = float(difference.mean())
    return {"points": mean, "low": mean - spread, "high": mean + spread}


def _ratio(member: ac.FrontMember, other: ac.FrontMember) -> float:
    return float(member.measured["latency_ratio"] / other.measured["latency_ratio"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="a state dictionary, .safetensors")
    parser.add_argument("--depth", type=int, default=20, help="layers: 20, 32, 44 or 56")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--finalists", type=int, help="trained fully at most; else as time allows")
    parser.add_argument("--latency", type=float, default=0.65, help="of plain int8's, for the pick")
    parser.add_argument("--limit", help="constraint on latency, ms or percent of fp32's, as 30%%")
    parser.add_argument("--accuracy-drop", type=float, default=0.02, help="constraint on val")
    parser.add_argument("--study-dir", default="runs/cifar10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="random data, two trials")
    options = parser.parse_args()
    if options.smoke:  # trials so few may find nothing fast, so no limit either
        options.trials, options.minutes, options.latency = 2, 1, 100.0
    elif options.data is None or options.weights is None:
        parser.error("--data and --weights are needed, or --smoke")
    return options


if __name__ == "__main__":
    main()

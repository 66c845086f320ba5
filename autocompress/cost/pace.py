"""How long candidates train, beside each other."""

from autocompress.core.candidate import Candidate
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import pruned_widths

WORK, TRAFFIC = 0.15, 0.85
"""What multiply-accumulates and numbers written take of the time of a training step, where all of
both are there. Of eight candidates of a ResNet-56, of 4 to 39 % of the original's time (bfloat16,
one core of an AMD EPYC, batch 64), this tells the time within 0.08 of the original's."""

TEACHER = 0.1
"""What a teacher's answers take of the same time: its forward pass takes more, but is not needed
again when a batch comes again."""


def pace(graph: ModelGraph, candidate: Candidate) -> float:
    """Return the time of a training step, as a multiple of the original's with a teacher.

    Steps of narrow networks are spent on reading and writing tensors, not on
    arithmetic: blocks that are dropped make training quick, channels that are
    pruned less so.

    Args:
        graph: Structure of the original.
        candidate: What is trained; it has a teacher if its `kd_weight` is not zero.
    """
    macs, numbers = _work(graph, candidate)
    all_macs, all_numbers = _work(graph, Candidate())
    student = WORK * macs / max(1.0, all_macs) + TRAFFIC * numbers / max(1.0, all_numbers)
    taught = TEACHER * (candidate.distill.kd_weight > 0.0)
    return (student + taught) / (1.0 + TEACHER)


def _work(graph: ModelGraph, candidate: Candidate) -> tuple[float, float]:
    """Count the multiply-accumulates of all layers, and the numbers that they write."""
    macs = numbers = 0.0
    for name, width in pruned_widths(graph, candidate).items():
        if not candidate.drops(name):
            macs += width.macs
            numbers += width.macs * width.out_channels / max(1, width.parameters)
    return macs, numbers

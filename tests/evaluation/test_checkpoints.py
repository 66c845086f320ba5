from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.errors import StudyError
from autocompress.evaluation.checkpoints import (
    Checkpoint,
    find_ancestor,
    further_cuts,
    inherit_weights,
    list_checkpoints,
    load_weights,
    save_checkpoint,
)
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.compressed import CompressedModel
from seasoned import compressed, seasoned, uniform


class _Family:
    """Relatives of one small residual network."""

    def __init__(self) -> None:
        self.model, self.inputs = seasoned("ResidualNet")
        self.graph = trace(self.model, self.inputs)

    def __call__(self, *dropped: str, bits: int = 32, **ratios: float) -> CompressedModel:
        candidate = Candidate(
            pruning_ratios={name.replace("_", "."): ratio for name, ratio in ratios.items()},
            dropped_blocks=dropped,
            layers=uniform(self.graph, bits, 32) if bits < 32 else {},
            distill=DistillConfig(temperature=2.0),
        )
        return compress_model(self.model, self.graph, candidate, ((self.inputs,), {}))

    def saved(self, folder: Path, name: str, images: int, model: CompressedModel) -> Checkpoint:
        return save_checkpoint(model, folder / f"{name}.safetensors", images)


def test_checkpoints_are_saved_listed_and_loaded(tmp_path: Path) -> None:
    family = _Family()
    trained = family("layer1.1", layer2_0_conv1=0.5)
    with torch.no_grad():
        for parameter in trained.network.parameters():
            parameter.add_(0.01)
    saved = family.saved(tmp_path, "00003", 500, trained)
    family.saved(tmp_path, "00001", 100, family())
    listed = list_checkpoints(tmp_path)
    assert [checkpoint.path.name for checkpoint in listed] == [
        "00001.safetensors",
        "00003.safetensors",
    ]
    assert listed[1] == saved
    assert listed[1].trained_images == 500
    fresh = family("layer1.1", layer2_0_conv1=0.5)
    load_weights(fresh, saved, family.model)
    for name, tensor in fresh.network.state_dict().items():
        assert torch.equal(tensor, trained.network.state_dict()[name]), name
    assert list_checkpoints(tmp_path / "none") == []


def test_the_closest_relative_that_fits_is_the_ancestor(tmp_path: Path) -> None:
    family = _Family()
    checkpoints = [
        family.saved(tmp_path, "0", 900, family()),
        family.saved(tmp_path, "1", 100, family("layer1.0")),
        family.saved(tmp_path, "2", 300, family("layer1.0", bits=4)),
        family.saved(tmp_path, "3", 900, family("layer2.1")),
        family.saved(tmp_path, "4", 900, family("layer1.0", layer2_0_conv1=0.5)),
        family.saved(tmp_path, "5", 900, family("layer1.0", "layer1.1", "layer2.1")),
    ]

    def ancestor(model: CompressedModel) -> str:
        found = find_ancestor(model, checkpoints)
        return found.path.stem if found else ""

    assert ancestor(family("layer1.0", "layer1.1")) == "0"  # 900 / 3 against 300 / 2, twice cut
    assert ancestor(family("layer1.0")) == "0"  # 900 / 2 against 300
    assert ancestor(family("layer2.1")) == "3"
    assert ancestor(family("layer1.0", layer2_0_conv1=0.5)) == "4"  # pruned alike
    assert ancestor(family("layer1.0", layer2_0_conv1=0.25)) == "0"  # 4 was pruned more
    assert ancestor(family("layer1.0", layer2_0_conv1=0.75)) == "4"  # pruned further


def test_what_fits_nothing_has_no_ancestor(tmp_path: Path) -> None:
    family = _Family()
    parent = family.saved(tmp_path, "0", 900, family("layer1.0", layer2_0_conv1=0.5))
    assert find_ancestor(family(layer2_0_conv1=0.5), [parent]) is None
    assert find_ancestor(family("layer1.0", layer2_0_conv1=0.25), [parent]) is None


def test_a_parent_that_was_pruned_less_is_cut_further(tmp_path: Path) -> None:
    family = _Family()
    parent = family(layer2_0_conv1=0.25, conv1=0.25)
    with torch.no_grad():
        for parameter in parent.network.parameters():
            parameter.mul_(1.1)
    child = family("layer1.1", layer2_0_conv1=0.5, conv1=0.5)
    original = family(layer2_0_conv1=0.25, conv1=0.25).network.state_dict()
    load_weights(child, family.saved(tmp_path, "0", 100, parent), family.model)
    fresh = family("layer1.1", layer2_0_conv1=0.5, conv1=0.5)
    for (name, mine), cut in zip(
        child.network.named_parameters(), fresh.network.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, 1.1 * cut, msg=name)
    assert original.keys() >= child.network.state_dict().keys()


def test_pruning_inside_a_block_that_the_child_drops_does_not_matter(tmp_path: Path) -> None:
    family = _Family()
    parent = family.saved(tmp_path, "0", 100, family(layer1_0_conv1=0.5, layer2_0_conv1=0.5))
    child = family("layer1.0", layer2_0_conv1=0.5)
    assert find_ancestor(child, [parent]) == parent
    load_weights(child, parent, family.model)
    assert find_ancestor(family(layer2_0_conv1=0.5), [parent]) is None


def test_an_ancestor_that_lost_other_channels_does_not_fit(tmp_path: Path) -> None:
    family = _Family()
    with torch.no_grad():  # this block alone would keep the first channels of the trunk
        family.model.layer1[1].conv2.weight[:4] += 100.0
        family.model.conv1.weight[:4] *= 1e-3
        family.model.layer1[0].conv2.weight[:4] *= 1e-3
    parent = family.saved(tmp_path, "0", 100, family(conv1=0.5))
    assert find_ancestor(family(conv1=0.5), [parent]) == parent
    assert find_ancestor(family("layer1.1", conv1=0.5), [parent]) is None


def test_weights_of_a_parent_make_the_child_the_parent_without_the_block(tmp_path: Path) -> None:
    family = _Family()
    parent = family()
    with torch.no_grad():
        for parameter in parent.network.parameters():
            parameter.mul_(1.1)
    child = family("layer1.1", "layer2.1")
    load_weights(child, family.saved(tmp_path, "0", 100, parent), family.model)
    network = parent.network
    network.layer1, network.layer2 = network.layer1[:1], network.layer2[:1]
    with torch.no_grad():
        expected = network(family.inputs)
        torch.testing.assert_close(child(family.inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "foreign", "record"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "00007.safetensors"
    model, inputs = seasoned("Mlp")
    save_checkpoint(compressed(model, inputs, Candidate()), path, 10)
    content = path.read_bytes()
    if damage == "foreign":
        save_file({"a": torch.zeros(1)}, path)
    elif damage == "record":
        save_file({"a": torch.zeros(1)}, path, {"record": "[]", "trained_images": "1"})
    else:
        damaged = {"empty": b"", "garbage": b"x" * 300, "half": content[: len(content) // 2]}
        path.write_bytes(damaged[damage])
    with pytest.raises(StudyError, match=r"checkpoint '.*00007\.safetensors'.*delete the file"):
        list_checkpoints(tmp_path)


def _sparse(family: _Family, sparsity: float, pattern: str = "unstructured") -> CompressedModel:
    config = LayerConfig(sparsity=sparsity, sparsity_pattern=pattern)
    candidate = Candidate(layers={"layer1.0.conv1": config})
    return compress_model(family.model, family.graph, candidate, ((family.inputs,), {}))


def test_masked_weights_are_inherited_by_what_is_masked_at_least_as_far(tmp_path: Path) -> None:
    family = _Family()
    parent = _sparse(family, 0.5)
    with torch.no_grad():
        weight = parent.network.layer1[0].conv1.weight
        weight.mul_(torch.rand(weight.shape) + 0.5)
    saved = family.saved(tmp_path, "0", 100, parent)
    for sparsity, pattern, fits in (
        (0.5, "unstructured", True),
        (0.75, "unstructured", True),
        (0.5, "2:4", True),
        (0.25, "unstructured", False),
    ):
        child = _sparse(family, sparsity, pattern)
        assert (find_ancestor(child, [saved]) is not None) == fits
    assert find_ancestor(family(), [saved]) is None
    assert find_ancestor(family("layer1.0"), [saved]) == saved  # the masked layer is gone

    same, further = _sparse(family, 0.5), _sparse(family, 0.75)
    load_weights(same, saved, family.model)
    assert torch.equal(same.mask("layer1.0.conv1"), parent.mask("layer1.0.conv1"))
    assert torch.equal(same.network.layer1[0].conv1.weight, weight)
    load_weights(further, saved, family.model)
    mask = further.mask("layer1.0.conv1")
    assert not (mask & ~parent.mask("layer1.0.conv1")).any()
    assert weight[mask].abs().min() >= weight[parent.mask("layer1.0.conv1") & ~mask].abs().max()


def test_a_stage_cuts_the_channels_that_the_end_cuts(tmp_path: Path) -> None:
    family = _Family()
    with torch.no_grad():  # this block alone would keep the first channels of the trunk
        family.model.layer1[1].conv2.weight[:4] += 100.0
        family.model.conv1.weight[:4] *= 1e-3
        family.model.layer1[0].conv2.weight[:4] *= 1e-3
    end = Candidate(pruning_ratios={"conv1": 0.5}, dropped_blocks=("layer1.1",))
    halfway = Candidate(pruning_ratios={"conv1": 0.25})

    def cut(candidate: Candidate, final: Candidate | None) -> CompressedModel:
        inputs = ((family.inputs,), {})
        return compress_model(family.model, family.graph, candidate, inputs, final=final)

    assert further_cuts(cut(halfway, None).record, cut(end, None).record) is None
    stage, last = cut(halfway, end), cut(end, end)
    further = further_cuts(stage.record, last.record)
    assert further is not None
    assert {len(c.removed) for c in further if c.module == "conv1"} == {2}
    inherit_weights(last, stage)
    with torch.no_grad():
        expected = cut(end, None)(family.inputs)
        torch.testing.assert_close(last(family.inputs), expected)


def test_learned_steps_are_kept_for_the_same_structure(tmp_path: Path) -> None:
    family = _Family()
    trained = family(bits=3)
    trained.learn_steps()
    with torch.no_grad():
        for step in trained.steps.values():
            step.mul_(1.5)
    saved = family.saved(tmp_path, "00001", 100, trained)
    fresh, smaller = family(bits=3), family(bits=3, layer2_0_conv1=0.5)
    load_weights(fresh, saved, family.model)
    load_weights(smaller, saved, family.model)
    for name in trained.record.quantised:
        scales = trained.quantised_weight(name).grid.scales
        assert torch.equal(fresh.quantised_weight(name).grid.scales, scales)
    assert not smaller.steps

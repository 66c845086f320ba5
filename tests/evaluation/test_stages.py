import pytest

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.stages import cut_partly, plan_stages, stage_config
from toy_graphs import residual_graph

GRAPH = residual_graph(5, 32)
FINAL = Candidate(
    pruning_ratios={"blocks.0.conv1": 0.5},
    dropped_blocks=("blocks.1", "blocks.2", "blocks.3", "blocks.4"),
    layers={
        "conv1": LayerConfig(weight_bits=4, activation_bits=8, sparsity=0.8),
        "blocks.0.conv1": LayerConfig(sparsity=0.5, sparsity_pattern="2:4"),
    },
)


def test_an_iterative_schedule_cuts_equal_parts() -> None:
    stages = plan_stages(FINAL, TrainingConfig(schedule="iterative"), GRAPH)
    ratios = [stage.candidate.pruning_ratios["blocks.0.conv1"] for stage in stages]
    assert ratios == [4 / 32, 8 / 32, 12 / 32, 16 / 32]
    assert [len(stage.candidate.dropped_blocks) for stage in stages] == [1, 2, 3, 4]
    assert stages[0].candidate.dropped_blocks == ("blocks.1",)
    sparsity = [stage.candidate.layer("conv1").sparsity for stage in stages]
    assert sparsity == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [(stage.begins, stage.ends) for stage in stages] == [
        (0.0, 0.25),
        (0.25, 0.5),
        (0.5, 0.75),
        (0.75, 1.0),
    ]


def test_a_gradual_schedule_cuts_most_at_first() -> None:
    stages = plan_stages(FINAL, TrainingConfig(schedule="gradual", stages=3), GRAPH)
    ratios = [stage.candidate.pruning_ratios["blocks.0.conv1"] for stage in stages]
    cubic = [1.0 - (1.0 - step / 3.0) ** 3 for step in (1, 2, 3)]
    assert ratios == [round(0.5 * share * 32) / 32 for share in cubic]
    assert [stage.ends for stage in stages] == [0.25, 0.5, 1.0]


def test_bits_are_those_of_the_end_and_two_of_four_waits_for_it() -> None:
    stages = plan_stages(FINAL, TrainingConfig(schedule="gradual"), GRAPH)
    assert {stage.candidate.layer("conv1").weight_bits for stage in stages} == {4}
    patterns = [stage.candidate.layer("blocks.0.conv1").sparsity for stage in stages]
    assert patterns == [0.0, 0.0, 0.0, 0.5]
    assert stages[-1].candidate == FINAL.canonical()


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "gradual"])
def test_what_is_not_cut_has_one_stage(schedule: str) -> None:
    int8 = Candidate(layers={"conv1": LayerConfig(weight_bits=8, activation_bits=8)})
    (stage,) = plan_stages(int8, TrainingConfig(schedule=schedule), GRAPH)
    assert (stage.candidate, stage.begins, stage.ends) == (int8, 0.0, 1.0)


def test_stages_that_are_cut_alike_are_one() -> None:
    one_channel = Candidate(pruning_ratios={"blocks.0.conv1": 1 / 32})
    stages = plan_stages(one_channel, TrainingConfig(schedule="iterative"), GRAPH)
    # a quarter of a channel and half of one round to none, three quarters to one
    assert [(stage.begins, stage.ends) for stage in stages] == [(0.0, 0.5), (0.5, 1.0)]
    assert stages[0].candidate == Candidate()
    assert cut_partly(one_channel, 0.75, GRAPH) == one_channel
    unrounded = Candidate(pruning_ratios={"blocks.0.conv1": 0.7})  # 22.4 channels of 32
    assert plan_stages(unrounded, TrainingConfig(), GRAPH)[0].candidate.pruning_ratios == {
        "blocks.0.conv1": 22 / 32
    }


def test_images_and_seconds_are_shared_out() -> None:
    training = TrainingConfig(schedule="iterative", norm_l1=0.1, group_lasso=0.2)
    stages = plan_stages(FINAL, training, GRAPH)
    configs = [
        stage_config(stage, training, images=1000, trained=trained, seconds=left)
        for stage, trained, left in zip(
            stages, (0, 256, 512, 768), (8.0, 6.0, 4.0, 2.0), strict=True
        )
    ]
    assert [config.images for config in configs] == [250, 244, 238, 232]
    assert [config.seconds for config in configs] == pytest.approx([2.0, 2.0, 2.0, 2.0])
    assert [config.norm_l1 for config in configs] == [0.1, 0.1, 0.1, 0.0]
    assert [config.group_lasso for config in configs] == [0.2, 0.2, 0.2, 0.0]
    assert configs[2].cycle == (0.5, 0.75)


def test_rewinding_runs_through_all_rates_in_every_stage() -> None:
    training = TrainingConfig(schedule="iterative", rewind=True)
    for stage in plan_stages(FINAL, training, GRAPH):
        config = stage_config(stage, training, images=8, trained=0, seconds=None)
        assert config.cycle == (0.0, 1.0)
        assert config.seconds is None


def test_a_stage_without_time_or_images_left_is_short() -> None:
    training = TrainingConfig(schedule="iterative")
    stage = plan_stages(FINAL, training, GRAPH)[1]
    config = stage_config(stage, training, images=100, trained=64, seconds=-1.0)
    assert config.images == 0
    assert config.seconds is not None
    assert 0 < config.seconds < 0.01


def test_progress_is_of_the_whole() -> None:
    shares: list[float] = []
    stage = plan_stages(FINAL, TrainingConfig(schedule="iterative"), GRAPH)[1]
    step = stage.steps(shares.append)
    step(0.5)
    step(1.0)
    assert shares == [0.375, 0.5]

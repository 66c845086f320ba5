import io
import json

from rich.console import Console

from autocompress.controller.preflight import report_on
from autocompress.graph.structure import Block, ChannelGroup, GroupMember, Layer, ModelGraph
from autocompress.report.preflight import CheckReport, check_json, check_summary, check_tables
from autocompress.space.preset import SearchSpace

GRAPH = ModelGraph(
    layers=(
        Layer(
            name="conv1",
            type="Conv2d",
            input_shape=(3, 8, 8),
            output_shape=(16, 8, 8),
            weight_shape=(16, 3, 3, 3),
            macs=27_648,
            parameters=432,
        ),
        Layer(
            name="fc",
            type="Linear",
            input_shape=(16,),
            output_shape=(10,),
            weight_shape=(10, 16),
            macs=160,
            parameters=170,
            quantisable=False,
            reason="tied weights",
        ),
    ),
    operations=(),
    groups=(
        ChannelGroup(
            name="conv1",
            channels=16,
            members=(
                GroupMember(module="conv1", axis="out", indices=((0,),)),
                GroupMember(module="fc", axis="in", indices=((0,),)),
            ),
            prunable=False,
            reason="masked and pruned outputs differ",
        ),
    ),
    blocks=(Block(name="layer1.0", layers=("layer1.0.conv1",), droppable=True),),
    parameters=602,
    fingerprint="0",
)


def render(found: ModelGraph) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    for table in check_tables(found):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_tables_say_what_is_blocked_and_why() -> None:
    text = render(GRAPH)
    assert "no: masked and pruned outputs differ" in text
    assert "no: tied weights" in text
    assert "27,648" in text
    assert "16x3x3x3" in text
    assert "layer1.0" in text


def test_a_model_without_blocks_has_no_table_of_them() -> None:
    without = ModelGraph(
        layers=GRAPH.layers,
        operations=(),
        groups=GRAPH.groups,
        blocks=(),
        parameters=602,
        fingerprint="0",
    )
    assert "Residual blocks" in render(GRAPH)
    assert "Residual blocks" not in render(without)


def test_the_summary_counts_what_can_be_compressed() -> None:
    assert check_summary(GRAPH) == (
        "0 of 1 groups can be pruned, 1 of 1 blocks dropped, 1 of 2 layers quantised; 27,808 MACs"
    )


def test_the_json_says_the_same() -> None:
    record = json.loads(json.dumps(check_json(GRAPH)))
    assert record["groups"] == [
        {
            "name": "conv1",
            "channels": 16,
            "members": ["conv1", "fc"],
            "outputs": {"conv1": 1 / 16},
            "prunable": False,
            "reason": "masked and pruned outputs differ",
        }
    ]
    assert record["blocks"][0]["droppable"] is True
    assert [layer["quantisable"] for layer in record["layers"]] == [True, False]


def test_a_report_is_printed_and_written_as_json() -> None:
    space = SearchSpace.load({"blocks": {"drop": False}})
    report = CheckReport.of(report_on(GRAPH, space, 60.0))
    assert hash(report) == hash(GRAPH)
    text = str(report)
    assert "no: excluded by the space" in text
    assert "search time: about 60 seconds" in text
    assert text.splitlines()[-1].endswith("27,808 MACs")
    record = json.loads(json.dumps(report.to_dict()))
    assert record["blocks"][0]["reason"] == "excluded by the space"
    assert record["macs"] == 27_808
    assert record["search_seconds_estimate"] == 60.0
    assert record["savings"] == []

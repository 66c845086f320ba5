from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.core import plugins
from autocompress.core.candidate import Candidate
from autocompress.core.objective import Cost, cost_unit, parse_constraints, parse_objectives
from autocompress.core.plugins import load_plugin, plugin_names
from autocompress.core.target import Target
from autocompress.cost.analytic import count_costs
from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.space.preset import SearchSpace
from autocompress.transform.criteria import Criterion, find_criterion
from toy_graphs import residual_graph

MODULE = """
from autocompress.core.objective import Cost
from autocompress.core.target import Target
from autocompress.transform.criteria import Criterion

BOARD = Target(name="board", threads=4, round_to=4)
LAYERS = Cost(unit="layers", compute=lambda graph, candidate: len(graph.layers))
FIRST = Criterion(score=lambda subject: None)
"""

ENTRIES = """
[autocompress.targets]
board = plugin_user:BOARD
broken = plugin_user:NOTHING
[autocompress.costs]
layer_count = plugin_user:LAYERS
[autocompress.criteria]
first = plugin_user:FIRST
wrong = plugin_user:BOARD
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package on the import path that registers one of each kind."""
    (tmp_path / "plugin_user.py").write_text(MODULE)
    info = tmp_path / "plugin_user-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-user\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    for function in (plugins.plugin_names, plugins._loaded):
        function.cache_clear()
    yield
    for function in (plugins.plugin_names, plugins._loaded):
        function.cache_clear()


@pytest.mark.usefixtures("registered")
def test_a_target_has_a_name_like_any_other() -> None:
    target = Target.named("board", threads=2, batch_size=3)
    assert (target.threads, target.batch_size, target.round_to) == (2, 3, 4)
    with pytest.raises(InvalidInputError, match="did you mean 'board'"):
        Target.named("bord")


@pytest.mark.usefixtures("registered")
def test_a_cost_is_counted_and_may_be_limited() -> None:
    assert count_costs(residual_graph(), Candidate())["layer_count"] == len(residual_graph().layers)
    assert parse_objectives(["accuracy", "layer_count"])[1].name == "layer_count"
    assert parse_constraints({"layer_count": "50%"})[0].relative
    assert cost_unit("layer_count") == "layers"


@pytest.mark.usefixtures("registered")
def test_a_criterion_may_be_searched_over() -> None:
    assert Candidate(criterion="first").criterion == "first"
    space = SearchSpace.load({"pruning": {"criteria": ["l1", "first"]}})
    assert space.pruning.criteria == ("l1", "first")
    assert isinstance(find_criterion("first"), Criterion)


@pytest.mark.usefixtures("registered")
def test_what_cannot_be_loaded_says_where_it_comes_from() -> None:
    with pytest.raises(InvalidInputError, match="'plugin_user:NOTHING' can be imported"):
        load_plugin("targets", "broken", Target)
    with pytest.raises(WrongTypeError, match="expected a Criterion, got Target"):
        find_criterion("wrong")


def test_without_packages_there_is_nothing() -> None:
    assert plugin_names("costs") == ()
    with pytest.raises(InvalidInputError):
        parse_objectives(["accuracy", "layer_count"])
    assert Cost(unit="m", compute=lambda graph, candidate: 1.0).unit == "m"

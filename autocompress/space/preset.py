"""What a search may vary, read from YAML and not yet bound to a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import nn

from autocompress.core.schema import expected_value, unknown_name
from autocompress.core.target import CHANNEL_UNIT, Target
from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError, explain
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.space.bound import BoundSpace
from autocompress.space.choices import (
    achieved_ratios,
    executable_bits,
    offered_precisions,
    offered_sparsity,
    selected,
)
from autocompress.space.parameter import Parameter
from autocompress.space.sections import (
    Blocks,
    Distillation,
    Pruning,
    Quantisation,
    Range,
    Section,
    Sparsity,
    Text,
)
from autocompress.space.ties import tied_sets
from autocompress.yaml_file import YAML_ERRORS, parse_yaml

EXCLUDED = "excluded by the space"
NO_RATIO = "no ratio of the space fits its channels"


class SearchSpace(Section):
    """A search space as its YAML file describes it.

    The unmodified model belongs to every space: ratio 0, no block dropped
    and 32 bits are offered whether or not the lists name them.

    Attributes:
        schema_version: Version of the file format.
        name: What it is called.
        description: Which models it suits.
        pruning: How many channels each group may lose.
        blocks: Which residual blocks may be dropped.
        quantisation: Which bits each layer may take.
        sparsity: How many single weights each layer may lose.
        distillation: How a fine-tune may be taught.
    """

    schema_version: Literal[1] = 1
    name: Text = "custom"
    description: Text = ""
    pruning: Pruning = Pruning()
    blocks: Blocks = Blocks()
    quantisation: Quantisation = Quantisation()
    sparsity: Sparsity = Sparsity()
    distillation: Distillation = Distillation()

    @classmethod
    def load(cls, source: "str | Path | Mapping[str, Any] | SearchSpace") -> "SearchSpace":
        """Read a search space.

        Args:
            source: Name of a preset, path of a YAML file, a mapping with the
                same keys, or a space, which is returned as it is.

        Raises:
            InvalidInputError: If there is no such preset, or the content has
                an unknown key, a wrong type or a value out of range.
            MissingFileError: If the path does not exist.
            WrongTypeError: If `source` is none of the above.

        Example:
            >>> SearchSpace.load("cnn").name
            'cnn'
        """
        if isinstance(source, SearchSpace):
            return source
        if isinstance(source, Mapping):
            return _validated(dict(source), "search space")
        if not isinstance(source, (str, Path)):
            raise WrongTypeError(
                explain(
                    "'space'",
                    expected="a preset name, a path or a mapping",
                    got=type(source).__name__,
                    remedy="write 'cnn'",
                )
            )
        path = _path(source)
        return _validated(_read_yaml(path), f"search space '{path}'")

    def group_choices(
        self, graph: ModelGraph, target: Target | None = None
    ) -> dict[str, tuple[float, ...]]:
        """List the ratios of the groups that may be pruned, those with a choice."""
        unit = self.pruning.round_to or (CHANNEL_UNIT if target is None else target.round_to)
        ratios = {
            group.name: achieved_ratios(
                group.channels, self.pruning.ratios, round_to=math.ceil(unit / group.width)
            )
            for group in graph.groups
            if group.prunable and self._prunes(graph, group.name)
        }
        return {name: choices for name, choices in ratios.items() if len(choices) > 1}

    def block_choices(self, graph: ModelGraph) -> tuple[str, ...]:
        """List the blocks that may be dropped."""
        return tuple(
            block.name
            for block in graph.blocks
            if self.blocks.drop and block.droppable and _chosen(self.blocks, block.name, "")
        )

    def restrict(self, graph: ModelGraph) -> ModelGraph:
        """Return the structure as far as this space lets it vary.

        Args:
            graph: The structure of a model.

        Returns:
            The same, with what the space leaves out refused for that reason.
        """
        groups, blocks = self.group_choices(graph), self.block_choices(graph)
        quantised = self._quantised(graph)
        ratios = {True: NO_RATIO, False: EXCLUDED}
        return replace(
            graph,
            groups=tuple(
                group
                if not group.prunable or group.name in groups
                else replace(group, prunable=False, reason=ratios[self._prunes(graph, group.name)])
                for group in graph.groups
            ),
            blocks=tuple(
                block
                if not block.droppable or block.name in blocks
                else replace(block, droppable=False, reason=EXCLUDED)
                for block in graph.blocks
            ),
            layers=tuple(
                layer
                if not layer.quantisable or layer.name in quantised
                else replace(layer, quantisable=False, reason=EXCLUDED)
                for layer in graph.layers
            ),
        )

    def _prunes(self, graph: ModelGraph, group: str) -> bool:
        return _chosen(self.pruning, group, _type(graph, group))

    def _quantised(self, graph: ModelGraph) -> list[str]:
        return [
            layer.name
            for layer in graph.layers
            if layer.quantisable and _chosen(self.quantisation, layer.name, layer.type)
        ]

    def bind(
        self, model: nn.Module, example_inputs: object, target: Target | None = None
    ) -> BoundSpace:
        """Trace a model and bind the space to what can vary in it.

        Args:
            model: Any module; it is not changed.
            example_inputs: A tensor, a tuple of positional arguments, or a
                dictionary of keyword arguments; batch axis first.
            target: The device; its limits on activation bits apply.

        Raises:
            TraceError: If the model cannot be traced.
            InvalidInputError: If nothing of the model can vary.
        """
        return self.bind_graph(trace(model, example_inputs), target)

    def bind_graph(
        self,
        graph: ModelGraph,
        target: Target | None = None,
        costs: Sequence[str] | None = None,
    ) -> BoundSpace:
        """Bind the space to a traced model.

        Args:
            graph: The structure of the model.
            target: The device; activation bits it does not execute go, and
                channels move in its unit unless the space names one.
            costs: Names of cost objectives and constraints. With a target,
                bits that can change none of them are not offered.

        Raises:
            InvalidInputError: If nothing of the model can vary.
        """
        pruned = self.group_choices(graph, target)
        precisions = offered_precisions(
            self.quantisation.weight_bits,
            self.quantisation.activation_bits,
            target=target,
            costs=costs,
            group_size=self.quantisation.group_size,
        )
        quantised = self._quantised(graph)
        levels = offered_sparsity(self.sparsity.levels, costs)
        sparse = [
            layer.name
            for layer in graph.layers
            if layer.quantisable and _chosen(self.sparsity, layer.name, layer.type)
        ]
        return BoundSpace(
            graph=graph,
            pruning_choices=pruned,
            blocks=self.block_choices(graph),
            layers=tuple(quantised) if len(precisions) > 1 else (),
            layer_precisions=precisions,
            criteria=tuple(dict.fromkeys(self.pruning.criteria)),
            temperature=_parameter("temperature", self.distillation.temperature),
            kd_weight=_parameter("kd_weight", self.distillation.kd_weight),
            feature_weight=_parameter("feature_weight", self.distillation.feature_weight),
            method=self.distillation.method,
            sparse_layers=tuple(sparse) if len(levels) > 1 else (),
            sparsity_levels=levels,
            pruning_ties=tied_sets(tuple(pruned), self.pruning.ties),
            precision_ties=tied_sets(quantised, self.quantisation.ties),
            sparsity_ties=tied_sets(sparse, self.sparsity.ties),
            end_bits=self.quantisation.end_bits,
            end_activation_bits=executable_bits(self.quantisation.end_bits, target),
            weight_format=self.quantisation.weight_format,
            group_size=self.quantisation.group_size,
        )


def preset_folder() -> Path:
    """Find the folder of the presets, in an installed wheel or in a checkout.

    Raises:
        MissingFileError: If there is none, which means a broken installation.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "search_spaces", package.parent / "search_spaces"):
        if folder.is_dir():
            return folder
    raise MissingFileError(
        explain(
            "presets of search spaces",
            expected=f"'{package / 'search_spaces'}'",
            got="no such folder",
            remedy="install autocompress again",
        )
    )


def preset_names() -> tuple[str, ...]:
    """List the presets, sorted."""
    return tuple(sorted(path.stem for path in preset_folder().glob("*.yaml")))


def _path(source: str | Path) -> Path:
    path = Path(source)
    if isinstance(source, str) and path.name == source and not path.suffix:
        if source not in preset_names():
            raise InvalidInputError(unknown_name("search space", source, preset_names()))
        return preset_folder() / f"{source}.yaml"
    if not path.is_file():
        raise MissingFileError(
            explain(
                f"search space '{path}'",
                expected="a YAML file",
                got="nothing there",
                remedy="check the path, or name a preset: " + ", ".join(preset_names()),
            )
        )
    return path


def _read_yaml(path: Path) -> object:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except YAML_ERRORS as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(
            explain(
                f"search space '{path}'", expected="YAML", got=reason, remedy="correct the file"
            )
        ) from error


def _validated(content: object, what: str) -> SearchSpace:
    try:
        return SearchSpace.model_validate(content)
    except ValidationError as error:
        raise InvalidInputError(_sentence(what, error)) from error


def _sentence(what: str, error: ValidationError) -> str:
    """Word one thing that pydantic found, an unknown key before others."""
    found = error.errors(include_url=False)
    first = min(found, key=lambda detail: detail["type"] != "extra_forbidden")
    location = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        section: Any = SearchSpace
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        inside = f", '{'.'.join(location[:-1])}'" if location[:-1] else ""
        return unknown_name(f"{what}{inside}, key", location[-1], tuple(section.model_fields))
    return explain(
        what + (f", '{'.'.join(location)}'" if location else ""),
        expected=expected_value(first),
        got="none" if first["type"] == "missing" else repr(first["input"]),
        remedy="correct the value",
    )


def _chosen(section: Pruning | Blocks | Quantisation | Sparsity, name: str, kind: str) -> bool:
    return selected(name, kind, include=section.include, exclude=section.exclude)


def _parameter(name: str, interval: Range) -> Parameter:
    return Parameter(
        name=name, kind="float", low=interval.low, high=interval.high, log=interval.log
    )


def _type(graph: ModelGraph, name: str) -> str:
    return graph.layer_by_name[name].type if name in graph.layer_by_name else ""

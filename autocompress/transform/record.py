"""The surgery record: what was done to a model, enough to do it again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from autocompress.core.candidate import Candidate
from autocompress.core.schema import SCHEMA_VERSION, check_record
from autocompress.errors import InvalidInputError, explain


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The positions that were removed along one axis of one module.

    Attributes:
        module: Fully qualified module name.
        axis: Which one, as group members name it: "out", "in", ...
        size: Length of the axis before the cut.
        removed: Positions removed, ascending.
    """

    module: str
    axis: str
    size: int
    removed: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """The positions that were kept, ascending."""
        gone = set(self.removed)
        return tuple(position for position in range(self.size) if position not in gone)


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One activation tensor that is quantised, with one grid for all its consumers.

    Attributes:
        name: The first consumer and its role, for example "conv1.input".
        bits: The largest activation bits among the consumers.
        points: Where the grid applies, as numbers of the operations (in
            order of execution) whose output is that tensor or a view of it;
            -1, -2, ... are the inputs of the model.
    """

    name: str
    bits: int
    points: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantisationPlan:
    """Where grids apply in a model; found by one run of it.

    Attributes:
        sites: The quantised tensors.
        inputs: Layer name to the number of the site that feeds it.
        folds: Layer name to the batch norm that follows it alone, and that
            operation's number; it is folded into the layer at export.
    """

    sites: tuple[Site, ...] = ()
    inputs: Mapping[str, int] = field(default_factory=dict)
    folds: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SurgeryRecord:
    """Everything that turns the original architecture into the compressed one.

    Attributes:
        candidate: The candidate, canonical.
        dropped_blocks: Blocks that the identity or zero replaced.
        branches: Those of them that zero replaced.
        cuts: Channels removed, per module and axis.
        quantised: Layer name to its weight bits, below 32 only.
        plan: The tensor quantisers.
        sparse: Layer name to the number of its weights that are not masked,
            masked layers only; the masks lie beside the weights.
        reduced: Whether 8-bit weights keep to 7 bits where activations are quantised.
    """

    candidate: Candidate
    dropped_blocks: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()
    quantised: Mapping[str, int] = field(default_factory=dict)
    plan: QuantisationPlan = field(default_factory=QuantisationPlan)
    sparse: Mapping[str, int] = field(default_factory=dict)
    reduced: bool = False

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "candidate": json.loads(self.candidate.to_json()),
                "dropped_blocks": list(self.dropped_blocks),
                "branches": list(self.branches),
                "cuts": [
                    {"module": c.module, "axis": c.axis, "size": c.size, "removed": list(c.removed)}
                    for c in self.cuts
                ],
                "quantised": dict(self.quantised),
                "sites": [
                    {"name": s.name, "bits": s.bits, "points": list(s.points)}
                    for s in self.plan.sites
                ],
                "inputs": dict(self.plan.inputs),
                "folds": {name: list(fold) for name, fold in self.plan.folds.items()},
                "sparse": dict(self.sparse),
                "reduced": self.reduced,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> "SurgeryRecord":
        """Read a record from what `to_json` returned.

        Raises:
            InvalidInputError: If the text is not JSON, or a key is unknown or missing.
        """
        keys = ("candidate", "dropped_blocks", "cuts", "quantised", "sites", "inputs", "folds")
        try:
            decoded = json.loads(text)
        except ValueError as error:
            raise InvalidInputError(
                explain("surgery record", expected="JSON", got=error, remedy="export it again")
            ) from error
        optional = ("branches", "sparse", "reduced")
        record = check_record(
            decoded, what="surgery record", keys=(*keys, *optional), required=keys
        )
        cut_keys, site_keys = ("module", "axis", "size", "removed"), ("name", "bits", "points")
        cuts = [
            check_record(c, what="cut", keys=cut_keys, required=cut_keys) for c in record["cuts"]
        ]
        sites = [
            check_record(s, what="site", keys=site_keys, required=site_keys)
            for s in record["sites"]
        ]
        return cls(
            candidate=Candidate.from_json(json.dumps(record["candidate"])),
            dropped_blocks=tuple(record["dropped_blocks"]),
            branches=tuple(record.get("branches", ())),
            cuts=tuple(Cut(**{**cut, "removed": tuple(cut["removed"])}) for cut in cuts),
            quantised=dict(record["quantised"]),
            plan=QuantisationPlan(
                sites=tuple(Site(**{**site, "points": tuple(site["points"])}) for site in sites),
                inputs=dict(record["inputs"]),
                folds={name: (fold[0], fold[1]) for name, fold in record["folds"].items()},
            ),
            sparse=dict(record.get("sparse", {})),
            reduced=bool(record.get("reduced", False)),
        )

"""What tracing finds in a model: layers, operations, channel groups and blocks."""

from dataclasses import dataclass
from functools import cached_property

from autocompress.core.schema import check_name
from autocompress.graph.operations import OperationTrace


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A convolution, linear layer or embedding, in order of execution.

    Attributes:
        name: Fully qualified module name.
        type: Class name, for example "Conv2d".
        input_shape: Shape of one example, batch axis removed.
        output_shape: The same of the output.
        weight_shape: Shape of the weight tensor.
        kernel_size: Kernel per spatial axis; () where there is none.
        stride: Stride per spatial axis; () where there is none.
        groups: Convolution groups; 1 for other layers.
        macs: Multiply-accumulates for one example, of all its runs.
        parameters: Number of weights and biases.
        runs: How often it runs in one inference; the shapes are those of the first run, and
            others count by their multiply-accumulates.
        tied: Name of an earlier layer that holds the same weight; "" for none.
        quantisable: Whether bits below 32 can be given.
        reason: Why not, if not; "" otherwise.
    """

    name: str
    type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    macs: int = 0
    parameters: int = 0
    runs: float = 1.0
    tied: str = ""
    quantisable: bool = True
    reason: str = ""

    @property
    def inputs_first(self) -> bool:
        """Whether the first axis of the weight is its inputs, or the entries of an embedding."""
        return self.type.startswith("ConvTranspose") or self.type == "Embedding"


def loses_whole_groups(inputs_per_group: int, groups: int) -> bool:
    """Tell how a convolution is pruned: by whole groups, or equally in each.

    Whole groups go where they are many and small, as in a depthwise
    convolution; where they are few, each loses the same positions.

    Args:
        inputs_per_group: Input channels of each convolution group.
        groups: Convolution groups.

    Example:
        >>> loses_whole_groups(1, 32), loses_whole_groups(16, 2), loses_whole_groups(8, 1)
        (True, False, False)
    """
    return groups > 1 and inputs_per_group <= groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """A functional operation that costs time: a residual add, a concatenation.

    Attributes:
        kind: "add" or "cat".
        scope: Name of the innermost module whose forward runs it; "" for the model.
        shape: Output shape of one example, batch axis removed.
        branch: Name of the module that alone makes what a residual add adds;
            "" if there is none.
    """

    kind: str
    scope: str
    shape: tuple[int, ...]
    branch: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMember:
    """One axis of one module that shrinks with a group.

    Attributes:
        module: Fully qualified module name.
        axis: "out" for what produces or carries the channels, "in" for what
            consumes them; "name:dim" for an axis of a parameter that belongs
            to no layer, and ".name" for an attribute that counts channels;
            ".name.number" for one number in a tuple.
        indices: For each channel of the group, the positions along the axis
            that go with it.
    """

    module: str
    axis: str
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelGroup:
    """Channels that must be pruned together, named by their first layer.

    A channel of a group may stand for several of a layer that only go
    together: an attention head, a group of a grouped convolution, the zeros
    in front of and behind a padded shortcut.

    Attributes:
        name: Name of the first layer, in execution order, that they make up;
            else of the first that has some of them.
        channels: How many there are.
        members: Everything that shrinks with them.
        prunable: Whether pruning them is safe.
        reason: Why not, if not; "" otherwise.
    """

    name: str
    channels: int
    members: tuple[GroupMember, ...]
    prunable: bool
    reason: str = ""

    @property
    def width(self) -> int:
        """How many outputs of its first layer go with each channel, at least one."""
        own = (m for m in self.members if (m.module, m.axis) == (self.name, "out"))
        return next((len(member.indices[0]) for member in own), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A residual block: the identity can replace it, or zero if it is only the branch.

    Attributes:
        name: Fully qualified module name.
        layers: Names of the layers inside.
        droppable: Whether it can be replaced.
        reason: Why not, if not; "" otherwise.
        is_branch: Whether the sum lies outside of it, in the forward pass of
            a module around it, so that zero replaces it.
    """

    name: str
    layers: tuple[str, ...]
    droppable: bool
    reason: str = ""
    is_branch: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelGraph:
    """The structure of one model.

    Attributes:
        layers: In order of execution.
        operations: In order of execution.
        groups: In order of execution.
        blocks: In order of execution.
        parameters: Total number of parameters of the model.
        fingerprint: Digest of the architecture: names and shapes, no values.
        flow: What it runs, operation by operation; None if that is not known.
    """

    layers: tuple[Layer, ...]
    operations: tuple[Operation, ...]
    groups: tuple[ChannelGroup, ...]
    blocks: tuple[Block, ...]
    parameters: int
    fingerprint: str
    flow: OperationTrace | None = None

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def layer_by_name(self) -> dict[str, Layer]:
        """Layers by their names."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def group_by_name(self) -> dict[str, ChannelGroup]:
        """Channel groups by their names."""
        return {group.name: group for group in self.groups}

    @cached_property
    def block_by_name(self) -> dict[str, Block]:
        """Residual blocks by their names."""
        return {block.name: block for block in self.blocks}

    @cached_property
    def branches(self) -> frozenset[str]:
        """Names of the blocks that zero replaces; the identity replaces all others."""
        return frozenset(block.name for block in self.blocks if block.is_branch)

    def layer(self, name: str) -> Layer:
        """Look a layer up; an unknown name is refused with the closest one."""
        check_name("layer", name, self.layer_by_name)
        return self.layer_by_name[name]

    def group(self, name: str) -> ChannelGroup:
        """Look a channel group up; an unknown name is refused."""
        check_name("channel group", name, self.group_by_name)
        return self.group_by_name[name]

    def block(self, name: str) -> Block:
        """Look a block up; an unknown name is refused with the closest one."""
        check_name("block", name, self.block_by_name)
        return self.block_by_name[name]

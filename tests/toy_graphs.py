"""Structures of models, written by hand so that no model needs tracing."""

from autocompress.graph.structure import Block, ChannelGroup, GroupMember, Layer, ModelGraph


def _conv(name: str, in_channels: int, out_channels: int, *, quantisable: bool = True) -> Layer:
    weight = (out_channels, in_channels, 3, 3)
    return Layer(
        name=name,
        type="Conv2d",
        input_shape=(in_channels, 8, 8),
        output_shape=(out_channels, 8, 8),
        weight_shape=weight,
        kernel_size=(3, 3),
        stride=(1, 1),
        macs=9 * in_channels * out_channels * 64,
        parameters=9 * in_channels * out_channels,
        quantisable=quantisable,
        reason="" if quantisable else "planted",
    )


def _group(name: str, channels: int, *, prunable: bool = True) -> ChannelGroup:
    indices = tuple((index,) for index in range(channels))
    return ChannelGroup(
        name=name,
        channels=channels,
        members=(GroupMember(module=name, axis="out", indices=indices),),
        prunable=prunable,
        reason="" if prunable else "planted",
    )


def residual_graph(blocks: int = 3, width: int = 32) -> ModelGraph:
    """A stem, residual blocks of two convolutions, a classifier.

    The stem's group cannot be pruned, the first block cannot be dropped, and
    the last layer cannot be quantised.
    """
    layers = [_conv("conv1", 3, width)]
    groups = [_group("conv1", width, prunable=False)]
    found = []
    for index in range(blocks):
        inside = tuple(f"blocks.{index}.conv{number}" for number in (1, 2))
        layers += [_conv(name, width, width) for name in inside]
        groups.append(_group(inside[0], width))
        found.append(Block(name=f"blocks.{index}", layers=inside, droppable=index > 0))
    head = Layer(
        name="fc",
        type="Linear",
        input_shape=(width,),
        output_shape=(10,),
        weight_shape=(10, width),
        macs=10 * width,
        parameters=10 * width + 10,
        quantisable=False,
        reason="planted",
    )
    return ModelGraph(
        layers=(*layers, head),
        operations=(),
        groups=tuple(groups),
        blocks=tuple(found),
        parameters=sum(layer.parameters for layer in (*layers, head)),
        fingerprint=f"residual {blocks} {width}",
    )

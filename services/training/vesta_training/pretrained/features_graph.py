"""The part of an imported network up to the tensors that a new head learns from, for batches of any size, in the opset of our graphs."""

import onnx
from onnx import TensorProto, helper, version_converter
from vesta_common.errors import InvalidArgument

from vesta_training.features.onnx_graph import IR_VERSION, OPSET
from vesta_training.pretrained.network import Network

PREFIX = "pretrained/"
"""Of the names of all nodes and tensors, so that they differ from those of other parts of a model file."""


def features_graph(model: onnx.ModelProto, network: Network) -> onnx.ModelProto:
    """Returns the graph from the input of a network, `(N, 3, S, S)`, to features, classes, boxes and objectness of all levels.

    The names of its tensors are those of the network after `PREFIX`.

    Raises:
        InvalidArgument: DETECTOR_INVALID, the graph cannot be converted.
    """
    part = onnx.ModelProto()
    part.CopyFrom(model)
    part.metadata_props.clear()
    del part.graph.value_info[:]
    wanted = [name for level in network.levels for name in (level.features, level.classes, level.box, level.objectness)]
    _keep_only(part.graph, wanted)
    del part.graph.output[:]
    part.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    constants = {tensor.name for tensor in part.graph.initializer}
    for entry in [one for one in part.graph.input if one.name in constants]:
        part.graph.input.remove(entry)
    part.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "images"
    try:
        converted = version_converter.convert_version(part, OPSET)
    except Exception as error:  # the converter raises RuntimeError and others for operators that it cannot convert
        raise InvalidArgument(
            f"the file cannot be converted to opset {OPSET}: {' '.join(str(error).split())[:300]}; export it with opset {OPSET}",
            reason="DETECTOR_INVALID",
        ) from error
    _rename(converted.graph)
    converted.ir_version = IR_VERSION
    return converted


def _keep_only(graph: onnx.GraphProto, wanted: list[str]) -> None:
    """Removes what the wanted tensors do not need."""
    producers = {name: node for node in graph.node for name in node.output}
    needed, waiting = set(), [*wanted]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(producers[name].input if name in producers else ())
    nodes = [node for node in graph.node if not needed.isdisjoint(node.output)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _rename(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for node in graph.node:
        node.name = PREFIX + node.output[0]
        for names in (node.input, node.output):
            renamed = [PREFIX + name if name else "" for name in names]
            del names[:]
            names.extend(renamed)
    for tensor in graph.initializer:
        tensor.name = PREFIX + tensor.name
    for end in (*graph.input, *graph.output):
        end.name = PREFIX + end.name

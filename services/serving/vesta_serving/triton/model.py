"""A model in Triton: its name, its input and its outputs, from which Triton's configuration follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from vesta_common.media.model_input import InputFormat
from vesta_common.media.model_signatures import SEGMENTATION
from vesta_contracts.training.v1 import ModelOutput

# Larger batches are not faster on a CPU and use twice the memory.
BATCH_MAX = 4

Outputs = Mapping[str, NDArray[Any]]
"""Outputs of a model by name, each `(N, …)`."""

# Several instances of one thread have 1.5 times the throughput of one instance with as many threads. uint8 pixels are a quarter of float32.
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch_max}
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [
{outputs}
]
instance_group [ {{ count: {instances} kind: KIND_{kind} }} ]
dynamic_batching {{ }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""
_OUTPUT = '  {{ name: "{name}" data_type: TYPE_{kind} dims: [ {sizes} ] }}'


@dataclass(frozen=True)
class TritonModel:
    """A model in Triton.

    Attributes:
        input: of the pixels that it receives.
        outputs: those that it computes, with their shapes without N.
    """

    name: str
    input: InputFormat
    outputs: tuple[ModelOutput, ...]

    @property
    def output_names(self) -> list[str]:
        return [output.name for output in self.outputs]

    def configuration(self, *, gpu: bool, instance_count: int) -> str:
        """Returns the `config.pbtxt`.

        Args:
            instance_count: instances of one thread each, which is the number of concurrent inferences.
        """
        return _CONFIG.format(
            name=self.name,
            batch_max=BATCH_MAX,
            height=self.input.height_px,
            width=self.input.width_px,
            outputs=",\n".join(map(_output, self.outputs)),
            instances=instance_count,
            kind="GPU" if gpu else "CPU",
        )


def _output(output: ModelOutput) -> str:
    """Returns an output in Triton's configuration, where -1 is a dimension that depends on the input."""
    sizes = ", ".join(str(size or -1) for size in output.dimensions)
    return _OUTPUT.format(name=output.name, kind="UINT8" if output.name == SEGMENTATION else "FP32", sizes=sizes)

"""What a new configuration begins with: its text, a fitting space, and a schema for editors."""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from autocompress.config import SECTIONS, SearchConfig
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.training import TrainingConfig
from autocompress.errors import WrongTypeError, explain
from autocompress.factories import call_factory, has_factory, required_arguments

if TYPE_CHECKING:
    from torch import nn

NEW_CONFIG = """\
# yaml-language-server: $schema={schema}
# A configuration of autocompress; `autocompress check` tells what it finds in the model.

model:
  factory: "{model}"  # a function in a module beside this file; returns the trained model
  args: {{}}                # its keyword arguments
  # weights: trained.safetensors   # a state dictionary to load into it
task:
  factory: "{task}"  # returns an autocompress.Task: train, val and test batches
  args: {{}}

target: onnxruntime-cpu   # what runs the result; also openvino-cpu, torch-cpu, ...
objectives: [accuracy, latency_ms]   # also size_bytes, macs, bops, peak_memory_bytes, ...
constraints:
  accuracy_drop: 0.02     # at most two points below the original, on val
  # latency_ms: "60%"     # of the original's, or a number of milliseconds
  # size_bytes: 300000

space: {space}            # what may vary; a preset or a file of your own
budget:
  trials: 60
  minutes: 10             # in all, with profiling and the training of finalists
seed: 0
"""


def new_config(model: str, task: str, space: str, schema_name: str) -> str:
    """Write the text of a new configuration.

    Args:
        model: "module:function" of the model.
        task: Likewise of the task.
        space: Name of a preset.
        schema_name: The schema file beside it.
    """
    return NEW_CONFIG.format(model=model, task=task, space=space, schema=schema_name)


def fitting_space(model: str, task: str, folder: Path) -> tuple[str, str]:
    """Make the model once, choose a preset by its layers, and look for the task.

    Args:
        model: "module:function" of the model.
        task: Likewise of the task.
        folder: Where modules are looked for.

    Returns:
        Name of a preset, "cnn" where the model's function needs arguments; and what is still to
        be written, else "".

    Raises:
        InvalidInputError: If the model's function is not there, or fails, or the module of
            the task does.
        WrongTypeError: If it returns no module.
    """
    from torch import nn

    if needed := required_arguments(model, folder):
        return "cnn", f"the arguments {', '.join(needed)} of '{model}', under model, args"
    made = call_factory(model, {}, folder, what="model")
    if not isinstance(made, nn.Module):
        raise WrongTypeError(
            explain(
                f"what '{model}' returns",
                expected="a torch.nn.Module",
                got=type(made).__name__,
                remedy="correct the function, or name another one",
            )
        )
    words = f"'{task}', a function that returns an autocompress.Task"
    return preset_for(made), "" if has_factory(task, folder) else words


def preset_for(model: "nn.Module") -> str:
    """Choose the preset that a model's layers fit.

    Example:
        >>> from torch import nn
        >>> preset_for(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
        'cnn'
        >>> preset_for(nn.Linear(4, 2))
        'mlp'
    """
    names = [type(module).__name__ for module in model.modules()]
    depthwise = [
        getattr(module, "groups", 1) == getattr(module, "in_channels", 0) > 1
        for module in model.modules()
    ]
    convolutions = sum(name.startswith("Conv") for name in names)
    if any("Attention" in name for name in names):
        if "Embedding" in names:
            return "bert"
        return "vit" if convolutions else "transformer"
    if any(depthwise):
        return "mobile"
    return "cnn" if convolutions else "mlp"


def schema() -> dict[str, Any]:
    """Return the JSON schema of configurations, with a description of every key."""
    found = SearchConfig.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "autocompress configuration"
    found["required"] = ["model", "task", "budget"]
    _describe(found, SearchConfig)
    for section in SECTIONS.values():
        if section.__name__ in found["$defs"]:
            _describe(found["$defs"][section.__name__], section)
    properties = found["properties"]
    for name, section in SECTIONS.items():
        if name and "name" in section.model_fields:  # a bare name stands for the section
            reference = {"$ref": f"#/$defs/{section.__name__}"}
            described = {"description": properties[name]["description"]}
            properties[name] = {"anyOf": [{"type": "string"}, reference]} | described
    for name, config in (("training", TrainingConfig), ("quantisation", QuantisationConfig)):
        own = TypeAdapter(config).json_schema() | {"additionalProperties": False}
        found["$defs"] |= own.pop("$defs", {})
        _describe(own, config)
        properties[name] = own
    limit = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[0-9.]+ *%$"}]}
    properties["constraints"]["additionalProperties"] = limit
    return found


def _describe(record: dict[str, Any], source: type) -> None:
    """Give the properties of a schema what the docstring of their class says of them."""
    record["description"] = inspect.cleandoc(source.__doc__ or "").partition("\n")[0]
    for name, words in _attributes(source).items():
        if name in record.get("properties", {}):
            record["properties"][name]["description"] = words


def _attributes(source: type) -> dict[str, str]:
    """Read the "Attributes" of a docstring, those of the bases first."""
    found: dict[str, str] = {}
    for base in reversed(source.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        text = text.split("\n\n")[0]
        for entry in re.split(r"\n(?=    \w)", f"\n{text}"):
            name, _, words = entry.strip().partition(": ")
            if name.isidentifier():
                found[name] = " ".join(words.split())
    return found

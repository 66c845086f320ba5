"""The search space: parameters bound to a model, and their encoding."""

from autocompress.space.bound import BoundSpace
from autocompress.space.parameter import Parameter
from autocompress.space.preset import SearchSpace, preset_folder, preset_names

__all__ = ["BoundSpace", "Parameter", "SearchSpace", "preset_folder", "preset_names"]

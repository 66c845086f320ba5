"""The user's own functions, named as "module:function", and trained weights."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from autocompress.core.schema import unknown_name
from autocompress.errors import AutocompressError, InvalidInputError, MissingFileError, explain

if TYPE_CHECKING:
    from torch import nn


_DAMAGED = (AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading a file that holds no weights may raise."""


def load_factory(spec: str, folder: Path) -> Callable[..., Any]:
    """Import a function of the user's own code.

    The module must lie below the folder, which is first on the import path
    while the module is imported.

    Args:
        spec: "module:function"; the module's name may have dots.
        folder: Where the module is looked for.

    Raises:
        InvalidInputError: If the text has another form, the module fails to
            import or belongs to another folder, or there is no such function.
        MissingFileError: If there is no such module below the folder.
    """
    name, _, function = spec.partition(":")
    module = _module(spec, folder)
    factory = getattr(module, function, None)
    if not callable(factory):
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == name
        ]
        raise InvalidInputError(unknown_name(f"factory '{spec}', function", function, own))
    return cast(Callable[..., Any], factory)


def has_factory(spec: str, folder: Path) -> bool:
    """Tell whether module and function are there; raises as `load_factory` does otherwise."""
    try:
        module = _module(spec, folder)
    except MissingFileError:
        return False
    return callable(getattr(module, spec.partition(":")[2], None))


def required_arguments(spec: str, folder: Path) -> list[str]:
    """Name the arguments without which a function cannot be called."""
    parameters = inspect.signature(load_factory(spec, folder)).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _module(spec: str, folder: Path) -> ModuleType:
    """Import the module of a factory."""
    what = f"factory '{spec}'"
    name, _, function = spec.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), function)):
        remedy = "write 'my_module:make_model'"
        raise InvalidInputError(
            explain(what, expected="'module:function'", got=f"'{spec}'", remedy=remedy)
        )
    file = _module_file(name, folder, what)
    with _import_path(folder):
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:  # as argparse raises in a script
            raise _failed(what, f"that '{file}' can be imported", error) from error
    origin = getattr(module, "__file__", None)
    if origin is None or Path(origin).resolve() != file.resolve():
        raise InvalidInputError(
            explain(
                what,
                expected=f"the module in '{file}'",
                got=f"another one of that name, '{origin}'",
                remedy="rename your module",
            )
        )
    return module


def call_factory(spec: str, args: Mapping[str, Any], folder: Path, *, what: str) -> Any:
    """Call a function of the user's own code; the folder is importable then and afterwards.

    It stays at the end of the import path: what the function returns may import more
    later, in this process or in workers of data loaders.

    Args:
        spec: "module:function", as for `load_factory`.
        args: Keyword arguments.
        folder: Where the module is looked for.
        what: What the function makes, for messages; "model" or "task".

    Returns:
        What the function returns.

    Raises:
        InvalidInputError: If the arguments do not fit, or the function fails.
    """
    factory = load_factory(spec, folder)
    signature = inspect.signature(factory)
    try:
        signature.bind(**args)
    except TypeError as error:
        raise InvalidInputError(
            explain(
                f"'{what}.args'",
                expected=f"the arguments of {spec}{signature}",
                got=f"{dict(args)} ({error})",
                remedy="correct the configuration",
            )
        ) from error
    with _import_path(folder, stays=True):
        try:
            return factory(**args)
        except AutocompressError:
            raise
        except (Exception, SystemExit) as error:
            expected = f"that {what} factory '{spec}' returns"
            raise _failed(f"'{what}'", expected, error) from error


def load_weights(model: "nn.Module", path: Path) -> None:
    """Load a state dictionary into a model, without executing pickled code.

    Args:
        model: Receives the weights.
        path: A safetensors file, or one that `torch.save` wrote.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If the file holds no weights, or those of another model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    what = f"weights '{path}'"
    if not path.is_file():
        raise MissingFileError(
            explain(what, expected="a file", got="nothing there", remedy="check the path")
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, *_DAMAGED) as error:
        raise InvalidInputError(
            explain(
                what,
                expected="a state dictionary",
                got=f"{type(error).__name__}",
                remedy="save it with safetensors.torch.save_file(model.state_dict(), path)",
            )
        ) from error
    try:
        model.load_state_dict(state)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise InvalidInputError(
            explain(
                what,
                expected=f"the state of {type(model).__name__}",
                got=" ".join(str(error).split())[:300],
                remedy="use the weights of this model, or correct 'model.args'",
            )
        ) from error


def _failed(what: str, expected: str, error: BaseException) -> InvalidInputError:
    """Name the innermost line of code at which the user's module failed."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = " ".join(str(error).split())
    return InvalidInputError(
        explain(
            what,
            expected=expected,
            got=f"{type(error).__name__}: {reason}" if reason else type(error).__name__,
            remedy=f"see {last.filename}, line {last.lineno}",
        )
    )


def _module_file(name: str, folder: Path, what: str) -> Path:
    path = folder.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    prefix = name.rpartition(".")[0]
    siblings = [f"{prefix}.{file.stem}".lstrip(".") for file in path.parent.glob("*.py")]
    if not siblings:
        raise MissingFileError(
            explain(
                what,
                expected=f"a module '{path.with_suffix('.py')}'",
                got="nothing there",
                remedy="give its name relative to the configuration's folder",
            )
        )
    raise MissingFileError(unknown_name(f"{what}, module below '{folder}'", name, siblings))


@contextmanager
def _import_path(folder: Path, *, stays: bool = False) -> Iterator[None]:
    """Put a folder first on the import path, and last where it stays afterwards."""
    entry = str(folder)
    importlib.invalidate_caches()
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        if stays and entry not in sys.path:
            sys.path.append(entry)

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autocompress.errors import InvalidInputError, MissingFileError, TraceError
from autocompress.factories import call_factory, load_factory, load_weights

CODE = """
from json import loads as borrowed

def make_model(width=4):
    from acme_sibling import VALUE
    return (VALUE, width)

def make_task(data):
    raise OSError("no data in " + data)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "acme_user.py").write_text(CODE)
    (tmp_path / "acme_sibling.py").write_text("VALUE = 7\n")
    (tmp_path / "acme_package").mkdir()
    (tmp_path / "acme_package" / "inner.py").write_text("def make():\n    return 'inner'\n")
    path = list(sys.path)
    yield tmp_path
    assert sys.path in (path, [*path, str(tmp_path)])
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


def test_a_function_is_found_and_called_with_its_siblings_in_reach(folder: Path) -> None:
    assert call_factory("acme_user:make_model", {"width": 3}, folder, what="model") == (7, 3)


def test_what_a_function_made_may_import_more_later(folder: Path) -> None:
    (folder / "acme_lazy.py").write_text(
        "def make():\n    def later():\n        import acme_sibling\n"
        "        return acme_sibling.VALUE\n    return later\n"
    )
    later = call_factory("acme_lazy:make", {}, folder, what="model")
    assert later() == 7
    assert sys.path[-1] == str(folder)
    assert sys.path.count(str(folder)) == 1


def test_a_module_that_reads_arguments_at_import_is_named(folder: Path) -> None:
    (folder / "acme_script.py").write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(InvalidInputError, match=r"SystemExit.*acme_script\.py, line 2"):
        load_factory("acme_script:make", folder)


def test_dotted_modules_are_found_below_the_folder(folder: Path) -> None:
    assert load_factory("acme_package.inner:make", folder)() == "inner"


@pytest.mark.parametrize("spec", ["acme_user", "acme_user:", ":f", "a-b:f", "../x:f", "a..b:f", ""])
def test_another_form_is_refused(folder: Path, spec: str) -> None:
    with pytest.raises(InvalidInputError, match="expected 'module:function'"):
        load_factory(spec, folder)


def test_a_misspelt_module_gets_the_closest_name(folder: Path) -> None:
    with pytest.raises(MissingFileError, match="did you mean 'acme_user'"):
        load_factory("acme_usr:make_model", folder)
    with pytest.raises(MissingFileError, match=r"did you mean 'acme_package\.inner'"):
        load_factory("acme_package.iner:make", folder)


def test_a_module_outside_the_folder_is_not_taken(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="module below"):
        load_factory("json:loads", folder)
    with pytest.raises(MissingFileError, match="nothing there"):
        load_factory("json:loads", tmp_path / "acme_package" / "absent")


def test_a_name_that_another_module_holds_is_refused(folder: Path) -> None:
    (folder / "json.py").write_text("def loads():\n    return 1\n")
    with pytest.raises(InvalidInputError, match="rename your module"):
        load_factory("json:loads", folder)


def test_a_misspelt_function_gets_the_closest_of_the_modules_own(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'make_model'") as raised:
        load_factory("acme_user:make_modl", folder)
    assert "borrowed" not in str(raised.value)


def test_a_module_that_fails_to_import_is_named_with_its_line(folder: Path) -> None:
    (folder / "acme_broken.py").write_text("\nimport acme_absent\n")
    with pytest.raises(InvalidInputError, match=r"acme_absent.*acme_broken\.py, line 2"):
        load_factory("acme_broken:make", folder)


def test_arguments_that_do_not_fit_are_refused_with_the_signature(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"'model\.args'.*\(width=4\).*'wdth'"):
        call_factory("acme_user:make_model", {"wdth": 3}, folder, what="model")


def test_a_function_that_fails_is_named_with_its_line(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"OSError: no data in x; see .*acme_user\.py"):
        call_factory("acme_user:make_task", {"data": "x"}, folder, what="task")


def test_our_own_errors_pass_through_a_function(folder: Path) -> None:
    (folder / "acme_ours.py").write_text(
        "from autocompress import errors\ndef make():\n    raise errors.TraceError('as it is')\n"
    )
    with pytest.raises(TraceError, match="as it is"):
        call_factory("acme_ours:make", {}, folder, what="model")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_weights_are_loaded_from_both_formats(tmp_path: Path, name: str) -> None:
    source = nn.Linear(3, 2)
    save = save_file if name.endswith(".safetensors") else torch.save
    save(source.state_dict(), tmp_path / name)
    model = nn.Linear(3, 2)
    load_weights(model, tmp_path / name)
    assert torch.equal(model.weight, source.weight)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_file_without_weights_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match="expected a state dictionary"):
        load_weights(nn.Linear(3, 2), tmp_path / name)


@pytest.mark.parametrize("content", [b"hello", {1: torch.zeros(2)}, [torch.zeros(2)]])
def test_other_files_of_torch_are_refused(tmp_path: Path, content: object) -> None:
    if isinstance(content, bytes):
        (tmp_path / "weights.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InvalidInputError, match="expected"):
        load_weights(nn.Linear(3, 2), tmp_path / "weights.pt")


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "model.pt")
    with pytest.raises(InvalidInputError, match="expected a state dictionary"):
        load_weights(nn.Linear(3, 2), tmp_path / "model.pt")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidInputError, match="expected the state of Linear"):
        load_weights(nn.Linear(3, 2), tmp_path / "weights.pt")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.pt"):
        load_weights(nn.Linear(3, 2), tmp_path / "absent.pt")

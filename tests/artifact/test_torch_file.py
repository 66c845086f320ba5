import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autocompress as ac
from autocompress.artifact.export import RuntimeModule
from autocompress.artifact.torch_file import read_program, write_program
from autocompress.errors import ExportError, InvalidInputError, MissingFileError


class Pair(nn.Module):
    """Takes one input by place and one by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, left: Tensor, *, right: Tensor) -> Tensor:
        return self.first(left) - self.second(right).relu()


class Choosy(nn.Module):
    """What it computes depends on values, which no program can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def test_a_program_has_the_values_of_the_codes_and_leaves_the_model_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(3, 6), torch.randn(3, 6)
    inputs = ((left,), {"right": right})
    layers = {"first": ac.LayerConfig(weight_bits=3, activation_bits=32)}
    example = {"left": left, "right": right}
    compressed = ac.compress(Pair().eval(), ac.Candidate(layers=layers), example)
    before = {name: value.clone() for name, value in compressed.state_dict().items()}
    write_program(compressed, tmp_path / "model.pt2", inputs)
    assert all(torch.equal(before[name], v) for name, v in compressed.state_dict().items())
    program = read_program(tmp_path / "model.pt2").module()
    for rows in (1, 5):  # its batch axis is dynamic
        fresh = torch.randn(rows, 6), torch.randn(rows, 6)
        expected = compressed(fresh[0], right=fresh[1])
        torch.testing.assert_close(program(*fresh), expected)


def test_what_torch_export_cannot_follow_is_said(tmp_path: Path) -> None:
    inputs = torch.ones(2, 6)
    compressed = ac.compress(nn.Sequential(nn.Linear(6, 4)).eval(), ac.Candidate(), inputs)
    compressed.network = Choosy()
    with pytest.raises(ExportError, match=r"torch\.export takes.*simplify the forward pass"):
        write_program(compressed, tmp_path / "model.pt2", ((inputs,), {}))
    assert list(tmp_path.iterdir()) == []


def test_only_programs_are_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"a \.pt2 file"):
        read_program(tmp_path / "none.pt2")
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(InvalidInputError, match="export the model for this target again"):
        read_program(tmp_path / "text.pt2")


def test_a_program_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    inputs = torch.ones(2, 6)
    compressed = ac.compress(nn.Sequential(nn.Linear(6, 4)).eval(), ac.Candidate(), inputs)
    write_program(compressed, tmp_path / "whole.pt2", ((inputs,), {}))
    with zipfile.ZipFile(tmp_path / "whole.pt2") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    path, refused = tmp_path / "part.pt2", 0
    for lost in parts:
        with zipfile.ZipFile(path, "w") as part:
            for name in parts.keys() - {lost}:
                part.writestr(name, parts[name])
        try:
            read_program(path)  # some parts are not needed
        except InvalidInputError:
            refused += 1
    assert refused >= 3


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path

import torch
from torch import nn

import autocompress as ac
from autocompress.artifact.torch_file import write_program

inputs = torch.ones(2, 600)
model = ac.compress(nn.Sequential(nn.Linear(600, 600)).eval(), ac.Candidate(), inputs)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_program(model, Path({str(tmp_path / "model.pt2")!r}), ((inputs,), {{}}))
except ac.errors.StorageError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout
    assert list(tmp_path.iterdir()) == []


class Halved(nn.Module):
    """Answers in bfloat16, which numpy has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).bfloat16()


def test_outputs_in_bfloat16_are_float32_outside(tmp_path: Path) -> None:
    model, inputs = Halved().eval(), torch.randn(2, 6)
    compressed = ac.compress(model, ac.Candidate(), inputs)
    write_program(compressed, tmp_path / "model.pt2", ((inputs,), {}))
    runtime = RuntimeModule(tmp_path / "model.pt2", target=ac.Target.named("torch-cpu"))
    got = runtime(inputs)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, model(inputs).float())

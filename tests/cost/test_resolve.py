import json
from pathlib import Path

import pytest

from autocompress.core.target import Target
from autocompress.cost.profile import DeviceProfile
from autocompress.cost.resolve import load_profile, resolve_target
from autocompress.cost.simulated import SimulatedProfile
from autocompress.errors import InvalidInputError, MissingFileError


def test_a_name_has_no_profile_yet_and_a_simulation_has_its_own() -> None:
    target, profile = resolve_target("onnxruntime-cpu")
    assert (target, profile) == (Target.named("onnxruntime-cpu"), None)
    target, profile = resolve_target("bit-fusion")
    assert profile == SimulatedProfile(target=target)


def test_a_path_gives_the_profile_and_its_target(tmp_path: Path) -> None:
    target = Target.named("onnxruntime-cpu", threads=2)
    saved = DeviceProfile(target=target, device="here", versions={}, created="", kernels={})
    saved.save(tmp_path / "profile.json")
    for given in (tmp_path / "profile.json", str(tmp_path / "profile.json")):
        found, profile = resolve_target(given)
        assert found == target
        assert profile == saved


def test_what_a_simulated_profile_saved_is_read_back(tmp_path: Path) -> None:
    saved = SimulatedProfile(target=Target.named("bit-serial"))
    saved.save(tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == saved


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([1]))
    with pytest.raises(InvalidInputError):
        load_profile(tmp_path / "a.json")
    with pytest.raises(MissingFileError):
        resolve_target(tmp_path / "none.json")

"""From what a user calls a target to the target, and the profile that predicts its costs."""

from pathlib import Path

from autocompress.core.files import read_json
from autocompress.core.target import Target
from autocompress.cost.profile import DeviceProfile
from autocompress.cost.simulated import SimulatedProfile

Profile = DeviceProfile | SimulatedProfile
"""What predicts the costs of candidates on a target."""


def load_profile(path: Path) -> Profile:
    """Read a profile that its `save` wrote.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If the file is no profile.
    """
    record = read_json(path)
    if isinstance(record, dict) and "simulated" in record:
        return SimulatedProfile(target=Target.from_json(record["simulated"]))
    return DeviceProfile.load(path)


def resolve_target(target: str | Path | Target) -> tuple[Target, Profile | None]:
    """Resolve a target; a path gives the profile, and the target it was made for.

    A simulated target has its profile at once; that of another is None unless given.
    """
    if isinstance(target, Path) or (isinstance(target, str) and target.endswith(".json")):
        given = load_profile(Path(target))
        return given.target, given
    resolved = target if isinstance(target, Target) else Target.named(target)
    if resolved.simulation is not None:
        return resolved, SimulatedProfile(target=resolved)
    return resolved, None

"""What a search begins with: the baseline's artifacts, and a profile of the target."""

import time
from contextlib import suppress
from dataclasses import replace

from autocompress.controller.designs import ladder_start, plain_int8, unmodified
from autocompress.controller.run import CONTENDER, Run
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import MeasuredMember
from autocompress.core.objective import known_costs
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.cost.resolve import Profile, load_profile
from autocompress.cost.simulated import SimulatedProfile
from autocompress.errors import ExportError, InvalidInputError
from autocompress.evaluation.batches import count
from autocompress.evaluation.networks import measure_networks
from autocompress.evaluation.proxy import score
from autocompress.evaluation.task import warn_of_guessing
from autocompress.graph.inputs import ModelInputs

BASELINE_SECONDS, PROFILE_SECONDS, NETWORK_SECONDS = 15.0, 40.0, 60.0
"""Longest measurements of the baselines, of all kernels, and of whole candidates."""

PROFILE = "profile.json"
"""File of a study's folder."""

NETWORKS = 32
"""Whole candidates that are timed at most, the original among them."""


def measure_baseline(run: Run) -> dict[str, float]:
    """Export and measure the original and plain int8, once in a study.

    Returns:
        "accuracy" on `val`, "proxy_accuracy" on the proxy's images, and the
        costs of the original's artifact.
    """
    known = run.ledger.get("baseline")
    if known is not None:
        return {key: float(value) for key, value in known.items()}
    setup, begun = run.setup, run.schedule.elapsed
    run.say("baseline", "exporting and measuring the original and plain int8")
    proxy_accuracy = score(setup.model, setup.task, setup.splits.proxy, device=setup.device)
    members = [_untrained(run, "0000", "unmodified", unmodified(setup.space))]
    int8 = plain_int8(setup.space)
    try:
        name = "0001" if int8 == ladder_start(setup.space) else CONTENDER
        members.append(_untrained(run, name, "plain int8", int8))
    except ExportError as error:
        run.say("baseline", f"plain int8 is not compared with: {error}")
    members = run.measure(members, seconds=run.schedule.at_most(BASELINE_SECONDS, 0.01))
    for member in members:
        run.say("baseline", f"{member.measured['origin']} measured", member=member)
    values = members[0].values()
    baseline = {
        "accuracy": values["accuracy"],
        "proxy_accuracy": proxy_accuracy,
        **{key: values[key] for key in known_costs() if key in values},
    }
    run.ledger.set("baseline", baseline)
    run.ledger.set("baseline_s", run.schedule.elapsed - begun)
    return baseline


def note_guessing(run: Run, accuracy: float) -> None:
    """Note an original that answers no better than without looking: nothing can be learned of it.

    Args:
        run: The search.
        accuracy: Of the original on `val`.
    """
    setup, examples = run.setup, count(run.setup.splits.val)
    warning = warn_of_guessing(accuracy, setup.task.commonest(setup.splits.val), examples)
    if warning:
        run.note("baseline", f"the original's accuracy of {100 * accuracy:.1f} % is {warning}")


def _untrained(run: Run, name: str, origin: str, candidate: Candidate) -> MeasuredMember:
    started = time.monotonic()
    model = run.evaluator.compress(candidate)
    run.evaluator.settle(model, exact=True)
    member = run.write_member(name, model, {}, origin=origin, trained_images=0)
    run.note_member(time.monotonic() - started)
    return member


def keep_given_profile(run: Run) -> None:
    """Write a given profile into the study at once, in place of the one that it had."""
    given, path = run.setup.profile, run.setup.study_dir / PROFILE
    if given is None:
        return
    if path.exists():
        with suppress(InvalidInputError):  # a damaged one is replaced, too
            if load_profile(path) == given:
                return
        run.say("profile", "predicting with the given profile from now on, not with the kept one")
    given.save(path)


def device_profile(run: Run) -> Profile:
    """Return the study's profile: given, kept, or measured now and corrected by the baseline."""
    setup = run.setup
    path = setup.study_dir / PROFILE
    if setup.profile is not None:
        return setup.profile
    if path.exists():
        return load_profile(path)
    run.say("profile", "measuring the kernels of the search space on the target")
    profile = profile_device(
        setup.graph,
        setup.space.pruning_choices,
        setup.target,
        seconds=run.schedule.at_most(PROFILE_SECONDS, 0.04),
    )
    profile = _refit(run, _time_networks(run, profile))
    profile.save(path)
    return profile


def refit_profile(run: Run, profile: Profile) -> Profile:
    """Correct a profile by measured members; one that the user gave stays as it is."""
    if run.setup.profile is not None or isinstance(profile, SimulatedProfile):
        return profile
    return _refit(run, profile)


def _refit(run: Run, profile: DeviceProfile) -> DeviceProfile:
    latencies = run.ledger.get("latency_ms", {})
    anchors = [
        profile.anchor(run.setup.graph, member.candidate, latencies[member.id])
        for member in run.members()
        if member.id in latencies
    ]
    return profile.refit(anchors)


def _time_networks(run: Run, profile: DeviceProfile) -> DeviceProfile:
    """Time some whole candidates, untrained, which teach a profile what they cost beside kernels.

    Their ratios to the original count: it is the original's own latency that all share.
    """
    setup = run.setup
    run.say("profile", "timing whole candidates on the target")
    args, kwargs = run.evaluator.inputs
    try:
        fitted = measure_networks(
            profile,
            setup.space,
            setup.model,
            ModelInputs(args=args, kwargs=kwargs),
            count=NETWORKS,
            seconds=run.schedule.at_most(NETWORK_SECONDS, 0.04),
        )
    except ExportError as error:  # of the quick exporter, which members do not go through
        run.say("profile", f"whole candidates are not timed: {error}")
        return profile
    known = run.ledger.get("latency_ms", {}).get("0000")
    if known is None or not fitted.anchors:
        return fitted
    scale = float(known) / fitted.anchors[0].latency_ms
    anchors = [replace(a, latency_ms=scale * a.latency_ms) for a in fitted.anchors]
    return profile.refit(anchors)

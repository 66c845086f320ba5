from autocompress.controller.ticket import IDENTITY, trial_attributes
from autocompress.core.candidate import Candidate


def test_a_trial_begins_with_what_a_retry_inherits_and_its_slot_is_written_last() -> None:
    candidate = Candidate(dropped_blocks=("layer1.1",))
    given = {"promote": True}
    found = trial_attributes(slot=3, candidate=candidate, origin="tpe", attributes=given)
    assert set(found) <= set(IDENTITY)
    assert list(found)[-1] == "slot"
    assert (found["slot"], found["attempt"], found["attributes"]) == (3, 1, given)
    assert Candidate.from_json(found["candidate"]) == candidate
    assert found["attributes"] is not given

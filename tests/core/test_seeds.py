from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.seeds import derive_seed

purposes = st.sampled_from(["sample", "fine-tune", "calibration", "split"])


@given(seed=st.integers(0, 2**31), slot=st.integers(-1, 10_000), purpose=purposes)
def test_a_derived_seed_repeats_and_fits_every_generator(
    seed: int, slot: int, purpose: str
) -> None:
    derived = derive_seed(seed, slot, purpose)
    assert derived == derive_seed(seed, slot, purpose)
    assert 0 <= derived < 2**31


def test_seeds_differ_by_run_slot_and_purpose() -> None:
    drawn = {
        derive_seed(seed, slot, purpose)
        for seed in range(5)
        for slot in range(-1, 20)
        for purpose in ("sample", "fine-tune")
    }
    assert len(drawn) == 5 * 21 * 2


def test_the_derivation_never_changes_between_versions() -> None:
    assert derive_seed(0, 0, "sample") == 2125106770

"""The accuracy of a candidate, at a fidelity."""

"""Plain data without torch: targets, candidates, evaluations, Pareto maths."""

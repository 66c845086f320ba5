"""The search space: parameters bound to a model, and their encoding."""

"""A/B rollout of a model version: who sees which, what came of it, and what is done then."""

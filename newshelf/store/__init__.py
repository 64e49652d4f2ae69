"""The event store: what was shown to whom, what came of it, and how rollouts stand."""

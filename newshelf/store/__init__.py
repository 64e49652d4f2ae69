"""The event store: exposures, feedback and the state of rollouts, in SQLite or PostgreSQL."""

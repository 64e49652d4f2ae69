"""The stages from catalogue to archive, and what makes each one stale."""

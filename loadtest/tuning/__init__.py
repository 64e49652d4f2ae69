"""Live load on a server: its profile, and the search of settings that meet an SLO."""

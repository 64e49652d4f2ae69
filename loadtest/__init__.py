"""Load scenarios for a running server, with Locust."""

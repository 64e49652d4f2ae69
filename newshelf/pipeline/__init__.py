"""Stages from a catalogue to archives, and the start of a server."""

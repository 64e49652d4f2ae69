"""Command line: one Typer app, a module per group of verbs."""

"""The command line: one Typer app, a file for each group of verbs."""

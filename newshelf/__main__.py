"""``python -m newshelf VERB``: the command line."""

from newshelf.cli.app import app

if __name__ == "__main__":
    app(prog_name="./run")

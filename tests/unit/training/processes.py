"""Processes that train, forked from one that has loaded the libraries, which takes longer."""

import multiprocessing

METHOD = "forkserver"
PROCESSES = multiprocessing.get_context(METHOD)
PROCESSES.set_forkserver_preload(["newshelf.training.launch"])
GROUP = "training processes"
"""Of the tests that share it."""

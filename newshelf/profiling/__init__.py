"""Where a request's time goes: ``./run profile``.

::

    journey     one request, from the client's send to its last byte, with its batch
    queue       what TorchServe itself counts of waiting
    breakdown   many journeys as a table
    trace_file  many journeys as a trace that Perfetto opens
    profile     all of it against a running server
"""

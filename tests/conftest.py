"""What every test process starts from."""

import signal

from hypothesis import HealthCheck, settings

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit
# that, down to the servers that the tests end with Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of a closed terminal, which nohup has ignored.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A busy machine breaks every limit of time, and the code is none the worse for it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: a compressed file's hold the time, and pytest-xdist's
    processes must collect the same tests.
    """
    return argname if isinstance(val, bytes) else None

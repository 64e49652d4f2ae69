"""What every test process starts from."""

import signal

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit
# that, down to the servers that the tests end with Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of a closed terminal, which nohup has ignored.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

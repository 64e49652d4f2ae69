"""TorchServe's worker for a connection that is already open; see ``handlers.stand_in``."""

import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from ts.arg_parser import ArgParser
from ts.model_service_worker import TorchModelServiceWorker

__all__ = ["be_worker"]


def be_worker(command: Sequence[str], connection: socket.socket) -> NoReturn:
    """Serve one connection of TorchServe's frontend in this process, and end it.

    Args:
        command: the worker's script and its arguments, as TorchServe gave them.
        connection: on which the frontend is about to ask for the model to be loaded.
    """
    try:
        logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
        sys.argv = list(command)
        given = ArgParser.model_service_worker_args().parse_args()
        worker = TorchModelServiceWorker(
            given.sock_type,
            given.sock_name,
            given.host,
            given.port,
            given.metrics_config,
            given.async_comm,
        )
        # The frontend has the launcher's id so far: it keeps the last one it reads.
        logging.info("[PID]%d", os.getpid())
        worker.handle_connection(connection)
    except SystemExit:
        pass
    except BaseException:
        logging.exception("the worker has failed")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        # Not the usual way out: a fork would wait for threads that only its parent has.
        os._exit(1)

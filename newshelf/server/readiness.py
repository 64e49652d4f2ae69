"""Whether both models really answer.

TorchServe's own ``/ping`` says Healthy while a worker keeps failing to load, and fails
while all is well but a worker is being added; a prediction is the only proof.
"""

import time
from collections.abc import Callable, Mapping

import httpx

from newshelf.errors import ServerError
from newshelf.server.client import Client
from newshelf.server.logs import ends_of, read_log
from newshelf.server.process import is_running
from newshelf.server.progress import OnWait, Progress
from newshelf.server.state import ServerState

__all__ = ["wait_until_ready"]

_PAUSE_S = 0.5
_DEATHS = 2
"""A worker that died this often while loading will not come up."""


def wait_until_ready(
    state: ServerState,
    questions: Mapping[str, dict[str, object]],
    *,
    timeout_s: float = 180.0,
    on_ready: Callable[[str, float], None] = lambda _model, _seconds: None,
    on_wait: OnWait = lambda _text: None,
) -> None:
    """Ask each model its question until it is answered with 200.

    Args:
        state: the server.
        questions: a valid request of each model that must answer.
        timeout_s: how long the server may make no progress.
        on_ready: told the model and the seconds it took, when it has answered.
        on_wait: told now and then what it still waits for.

    Raises:
        ServerError: TorchServe ended, a worker keeps dying, a model refused its question,
            or there is no progress; with the end of the log that tells why.
    """
    started = time.monotonic()
    with Client(state, timeout_s=10.0) as client:
        for model, question in questions.items():
            progress = Progress(state.process, model, timeout_s, on_wait)
            while not _answers(client, state, model, question):
                _give_up_early(state)
                if progress.failed():
                    raise ServerError(
                        f"{model} did not answer, with no progress within {timeout_s:.0f} s\n"
                        + ends_of(state.model_log, state.log)
                    )
                time.sleep(_PAUSE_S)
            on_ready(model, time.monotonic() - started)


def _answers(client: Client, state: ServerState, model: str, question: dict[str, object]) -> bool:
    # Java creates the file, then fills it.
    if not state.key_file.exists() or state.key_file.stat().st_size == 0:
        return False
    try:
        response = client.predict(model, json=question)
    except httpx.TransportError:
        return False
    if response.status_code == httpx.codes.OK:
        return True
    if response.status_code == httpx.codes.NOT_FOUND and "ModelNotFound" in response.text:
        raise ServerError(f"TorchServe did not load {model}\n" + ends_of(state.log))
    if response.is_client_error:
        raise ServerError(f"{model} refused the readiness question: {response.text}")
    return False


def _give_up_early(state: ServerState) -> None:
    if not is_running(state.process):
        raise ServerError("TorchServe ended while it started\n" + ends_of(state.log))
    if read_log(state.model_log).count("Backend worker process died") >= _DEATHS:
        raise ServerError("a worker cannot load its model\n" + ends_of(state.model_log))

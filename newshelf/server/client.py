"""Client of a running TorchServe: predictions, models and metrics, with its tokens."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from newshelf.errors import ServerError
from newshelf.server.state import Key, ServerState, read_keys


class Client:
    """Calls a server's inference and management APIs, or raises ``ServerError``; renews tokens."""

    def __init__(self, state: ServerState, *, timeout_s: float = 30.0) -> None:
        self._state = state
        self._timeout_s = timeout_s
        # The server runs on this machine: proxies of the environment do not apply.
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def predict(
        self,
        model: str,
        *,
        json: object | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
        files: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        data: Mapping[str, Any] | None = None,
        token: str | None = None,
        version: str | None = None,
    ) -> httpx.Response:
        """Send ``POST /predictions/{model}`` and return the response, whatever its status."""
        key = Key(key=token) if token is not None else self._fresh("inference")
        headers = key.header()
        if content_type is not None:
            headers["Content-Type"] = content_type
        return self._http.post(
            f"{self._state.inference_url}/predictions/{_path(model, version)}",
            json=json,
            content=content,
            files=files,
            data=data,
            headers=headers,
        )

    def encode(self, product: Mapping[str, Any], image: bytes | None = None) -> dict[str, Any]:
        """Embed one product; ``image`` holds the bytes of a JPEG, PNG or WebP file."""
        if image is None:
            return _answer(self.predict("encoder", json=product))
        data = {name: str(value) for name, value in product.items()}
        files = {"image": ("image", image)}
        return _answer(self.predict("encoder", files=files, data=data))

    def recommend(self, *, history: Sequence[str], k: int, **further: Any) -> dict[str, Any]:
        """Recommend ``k`` products; ``further`` holds other fields of the request."""
        body = {"history": list(history), "k": k, **further}
        return _answer(self.predict("recommender", json=body))

    def describe(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        """Return TorchServe's description of the default version, another, or ``all``."""
        path = f"/models/{_path(model, version)}"
        described: list[dict[str, Any]] = self._manage("GET", path, {}, self._timeout_s).json()
        return described

    def register(
        self, model: str, archive: str, workers: int, *, timeout_s: float, wait: bool = True
    ) -> None:
        """Load an archive of the model store; requires a server with ``enable_model_api``."""
        self._manage(
            "POST",
            "/models",
            {
                "model_name": model,
                "url": archive,
                "initial_workers": str(workers),
                "synchronous": str(wait).lower(),
            },
            timeout_s,
        )

    def unregister(self, model: str, *, timeout_s: float, version: str | None = None) -> None:
        """Unload a version and end its workers; the default version only as the last one."""
        self._manage("DELETE", f"/models/{_path(model, version)}", {}, timeout_s)

    def scale(self, model: str, version: str, workers: int) -> None:
        """Add workers to a version, or end its last ones; adding does not wait for them."""
        table = {"min_worker": str(workers), "max_worker": str(workers)}
        self._manage("PUT", f"/models/{_path(model, version)}", table, self._timeout_s)

    def set_default(self, model: str, version: str) -> None:
        """Make a loaded version answer requests that name none, with immediate effect."""
        path = f"/models/{_path(model, version)}/set-default"
        self._manage("PUT", path, {}, self._timeout_s)

    def authorization(self) -> dict[str, str]:
        """Return the header that predictions need, for other clients."""
        return self._fresh("inference").header()

    def metrics(self) -> str:
        """Return the Prometheus page."""
        return self._http.get(self._state.metrics_url).raise_for_status().text

    def _manage(
        self, method: str, path: str, parameters: Mapping[str, str], timeout_s: float
    ) -> httpx.Response:
        try:
            response = self._http.request(
                method,
                f"{self._state.management_url}{path}",
                params=parameters,
                headers=self._fresh("management").header(),
                timeout=timeout_s,
            )
        except httpx.TransportError as error:
            raise ServerError(f"TorchServe did not answer {method} {path}: {error!r}") from error
        if response.is_error:
            raise ServerError(f"TorchServe refused {method} {path}: {response.text.strip()}")
        return response

    def _fresh(self, purpose: str) -> Key:
        keys = read_keys(self._state.key_file)
        key: Key = getattr(keys, purpose)
        if not key.expired(datetime.now(UTC)):
            return key
        # TorchServe writes the new key to the key file; its answer has no body.
        response = self._http.get(
            f"{self._state.management_url}/token",
            params={"type": purpose},
            headers=keys.api.header(),
        )
        if response.is_error:
            raise ServerError(f"the {purpose} token expired and was not renewed: {response.text}")
        renewed: Key = getattr(read_keys(self._state.key_file), purpose)
        return renewed


def _path(model: str, version: str | None) -> str:
    return model if version is None else f"{model}/{quote(version, safe='')}"


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.status_code == httpx.codes.OK and isinstance(body, dict):
        return body
    if isinstance(body, dict) and "message" in body:
        field = f" (field {body['field']})" if body.get("field") else ""
        reason = f"{body.get('code', '')}: {body['message']}{field}"
    else:
        reason = response.text.strip() or "no reason given"
    raise ServerError(f"the server answered {response.status_code} {reason}")

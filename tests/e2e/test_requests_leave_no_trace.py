"""The server's logs tell of its own troubles, never of what a request held."""

import time

import httpx

from newshelf.pipeline.serve import Served
from newshelf.server.state import read_keys
from newshelf.serving.protocol import TIMEOUT_HEADER
from tests.e2e.products import ENCODER, JSON, RECOMMENDER

SECRET = "hush-7f3a"
REQUESTS: list[tuple[str, dict[str, object], int]] = [
    (ENCODER, {"json": {"title": SECRET}}, 200),
    (ENCODER, {"json": {SECRET: 1, "title": "a"}}, 422),
    (ENCODER, {"json": {"title": [SECRET]}}, 422),
    (ENCODER, {"json": {"image": SECRET}}, 422),
    (ENCODER, {"content": f"{{{SECRET}", "headers": {"Content-Type": JSON}}, 400),
    (ENCODER, {"content": SECRET, "headers": {"Content-Type": f"text/{SECRET}"}}, 415),
    (ENCODER, {"content": SECRET, "headers": {"Content-Type": "image/jpeg"}}, 422),
    (ENCODER, {"content": b"\x89PNG\r\n\x1a\n" + SECRET.encode()}, 422),
    (ENCODER, {"data": {SECRET: SECRET}, "files": {"image": (SECRET, b"GIF89a")}}, 422),
    (ENCODER, {"json": {"title": "a"}, "headers": {TIMEOUT_HEADER: SECRET}}, 422),
    (ENCODER, {"json": {"title": "a"}, "params": {"title": SECRET}}, 200),
    (RECOMMENDER, {"json": {"user_id": SECRET, "history": [SECRET], "exclude": [SECRET]}}, 200),
    (RECOMMENDER, {"json": {"candidates": [SECRET]}}, 404),
    (RECOMMENDER, {"json": {"filters": {"color": SECRET}}}, 200),
    (RECOMMENDER, {"json": {"filters": {SECRET: 1}}}, 422),
    (f"/predictions/{SECRET}", {"json": {}}, 404),
    (f"/{SECRET}", {"json": {}}, 404),
    # TorchServe fails at these by itself.
    (f"/predictions/encoder%zz{SECRET}", {"json": {}}, 403),
    (ENCODER, {
        "content": f"--x\r\nContent-Disposition: form-data\r\n\r\n{SECRET}\r\n--x--\r\n",
        "headers": {"Content-Type": f"multipart/form-data; boundary=x; of={SECRET}"},
    }, 500),
]  # fmt: skip
# What a worker prints is read, and what is logged is written, by threads of their own.
SETTLED_S = 0.5


def test_neither_contents_nor_tokens_nor_traces_are_logged(
    http: httpx.Client, server: Served
) -> None:
    for path, request, status in REQUESTS:
        url = http.base_url.copy_with(raw_path=path.encode())
        response = http.post(url, **request)
        assert response.status_code == status, (path, request, response.text)
    wrong = {"Authorization": f"Bearer {SECRET}"}
    assert http.post(ENCODER, json={"title": "a"}, headers=wrong).status_code == 400
    time.sleep(SETTLED_S)

    logs = [*server.state.directory.glob("*.log"), *server.state.directory.rglob("logs/*")]
    assert server.state.model_log in logs
    assert server.state.log in logs
    keys = read_keys(server.state.key_file)
    tokens = [key.token for key in (keys.inference, keys.management, keys.api)]
    for log in logs:
        text = log.read_text(encoding="utf-8")
        assert not [word for word in (SECRET, *tokens) if word in text], log
        # Neither Python's nor Java's, of this request or of any before.
        assert "Traceback" not in text, text
        assert "\n\tat " not in text, text
    # The one line that there is about a failure tells what and where.
    assert "IllegalArgumentException in io.netty." in server.state.log.read_text(encoding="utf-8")
    # Nothing grows by requests that are merely answered.
    assert "POST " not in "".join(log.read_text(encoding="utf-8") for log in logs)

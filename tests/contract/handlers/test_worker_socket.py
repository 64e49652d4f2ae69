"""Reading in blocks gives what TorchServe's own reading gives."""

import socket
import struct
import threading

import pytest
from ts.protocol import otf_message_handler

from handlers.torchserve_patches import read_in_blocks

STOCK = otf_message_handler._retrieve_buffer
"""TorchServe's own, kept before any test has set up a worker."""
LARGE = bytes(range(256)) * 4096
"""More than one block, 1 MiB."""


def field(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def batch(*bodies: bytes) -> bytes:
    """A message as TorchServe's frontend writes it."""
    end = struct.pack("!i", -1)
    message = b"I"
    for at, body in enumerate(bodies):
        message += field(f"id-{at}".encode())
        message += field(b"Content-Type") + field(b"image/jpeg") + field(b"x") + field(b"") + end
        message += field(b"body") + field(b"image/jpeg") + field(body) + end
    return message + end


@pytest.fixture(params=["whole", "in pieces"])
def sent(request):
    """Lets the other side of a connection send, and close it."""
    here, there = socket.socketpair()
    threads = []

    def send(data: bytes):
        piece = len(data) if request.param == "whole" else 7919
        parts = [data[at : at + piece] for at in range(0, len(data), piece)]

        def run():
            for part in parts:
                there.sendall(part)
            there.close()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return here

    yield send
    for thread in threads:
        thread.join()
    here.close()


@pytest.fixture
def stock(monkeypatch):
    """Undoes ``read_in_blocks`` before and after."""
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", STOCK)


def read_all(connection, count):
    return [otf_message_handler.retrieve_msg(connection) for _ in range(count)]


MESSAGES = [batch(b"a", LARGE, b""), batch(LARGE), batch(b"last")]


def test_messages_are_read_whole_and_one_by_one(sent, stock):
    read_in_blocks()
    found = read_all(sent(b"".join(MESSAGES)), len(MESSAGES))
    bodies = [[row["parameters"][0]["value"] for row in rows] for _, rows in found]
    assert bodies == [[b"a", LARGE, b""], [LARGE], [b"last"]]
    assert [command for command, _ in found] == [b"I"] * 3


def test_all_fields_are_the_same_as_torchserves(sent, stock):
    connection = sent(MESSAGES[0] + MESSAGES[0])
    # As in a worker: the message that loads the model is read by TorchServe's own code.
    expected = otf_message_handler.retrieve_msg(connection)
    read_in_blocks()
    assert otf_message_handler._retrieve_buffer is not STOCK
    assert otf_message_handler.retrieve_msg(connection) == expected


def test_a_worker_ends_with_its_frontend(sent, stock):
    read_in_blocks()
    connection = sent(MESSAGES[2][:-2])
    with pytest.raises(SystemExit) as ended:
        otf_message_handler.retrieve_msg(connection)
    assert ended.value.code == 0

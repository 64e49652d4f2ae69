import socket
from dataclasses import astuple

import pytest

from newshelf.errors import ServerError
from newshelf.server.ports import Ports, free_ports, require_free


def test_five_ports_in_a_row() -> None:
    assert astuple(Ports.starting_at(9080)) == (9080, 9081, 9082, 9083, 9084)


@pytest.mark.parametrize("first", [-1, 65531, 100_000])
def test_a_first_port_out_of_range_is_refused(first: int) -> None:
    with pytest.raises(ServerError, match="--port must lie between"):
        Ports.starting_at(first)


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports()
    assert len(set(astuple(ports))) == 5
    require_free(ports)


def test_a_busy_port_is_named_with_its_purpose_and_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"{port} \(grpc management\).*--port"):
            require_free(Ports(*astuple(free_ports())[:4], grpc_management=port))

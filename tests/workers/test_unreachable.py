"""Schedulers that do not answer as one: said at once, in words; a real one is greeted."""

import socket
import threading
from contextlib import contextmanager

import pytest

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.parallel import _clusters as clusters


@contextmanager
def listening(answer):
    """The address of a server that answers every connection so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@pytest.mark.parametrize("answer", [None, b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_scheduler_is_said_so(answer, monkeypatch):
    monkeypatch.setattr(clusters, "PATIENCE", 0.2)
    with listening(answer) as address, pytest.raises(InvalidArgument, match="no Dask scheduler answers at"):
        cs.Workers.scheduler(address)


def test_a_scheduler_is_greeted():
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address=None) as cluster:
        clusters._check_listens(cluster.scheduler_address)
        with cs.Workers.scheduler(cluster.scheduler_address) as workers:
            assert isinstance(workers, cs.Workers)

"""A slow way to the API server: each answer to a pod comes late by a fixed time.

A proxy on the node hands bytes on; nftables leads the pods' calls of the Service `kubernetes` through it. Kernels
without netem have no other way to slow down this one conversation and no other.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from flowagg_cluster.layout import API_SERVICE_IP, NODE_IP, POD_CIDR
from flowagg_cluster.namespaces import node_process

from tests.e2e.target import Node

API_PORT: Final = 6443
PROXY_PORT: Final = 16443
_TABLE: Final = "flowagg-latency"
_CHUNK: Final = 64 * 1024


@contextmanager
def api_latency(node: Node, seconds: float) -> Iterator[None]:
    """Connections that pods open meanwhile to the API server get each answer late by so many seconds."""
    process = node_process(node.layout)
    command = ["nsenter", "--target", str(process), "--net", sys.executable, "-m", __name__, f"--seconds={seconds}"]
    proxy = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    try:
        assert proxy.stdout is not None
        assert proxy.stdout.readline(), "the proxy ended"
        node.run("nft", "-f", "-", text=_rules())
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            node.run("nft", "delete", "table", "ip", _TABLE)
        proxy.terminate()
        proxy.communicate()


def _rules() -> str:
    """Before kube-proxy's own rules, which see a connection only while nobody has turned it."""
    match = f"ip saddr {POD_CIDR} ip daddr {API_SERVICE_IP} tcp dport 443"
    return f"""table ip {_TABLE} {{
      chain prerouting {{
        type nat hook prerouting priority dstnat - 10; policy accept;
        {match} dnat to {NODE_IP}:{PROXY_PORT}
      }}
    }}
    """


async def serve(seconds: float) -> None:
    """Hand bytes on, the API server's late."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                behind, ahead = await asyncio.open_connection(NODE_IP, API_PORT)
            except OSError:
                return
            with closing(ahead):
                await asyncio.gather(_hand_on(reader, ahead, 0.0), _hand_on(behind, writer, seconds))

    server = await asyncio.start_server(accept, NODE_IP, PROXY_PORT)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Hand bytes on, each chunk seconds after it came, until the end."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def take_in() -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            waiting.put_nowait((loop.time() + seconds, data))

    task = asyncio.create_task(take_in())
    try:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()  # the other side went away
    finally:
        await task


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(serve(parser.parse_args().seconds))

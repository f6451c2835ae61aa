"""OpenStack Swift with its S3 interface in one process: ``python swift_server.py FOLDER``.

Prints the port it listens on and serves until it is ended. One account server, one container server, one object server
on one device below FOLDER, and the proxy with the `s3api` middleware before them, as green threads; what Swift is told
stands in ``server.conf`` and ``proxy.conf`` beside this file. Signatures are checked, unlike moto's.
"""

# ruff: noqa: E402

import eventlet

eventlet.monkey_patch()  # before anything imports socket or threading

import sys
from pathlib import Path
from string import Template

from eventlet import wsgi
from swift.common import utils
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.ring import RingBuilder
from swift.common.wsgi import loadapp

HERE, HOST = Path(__file__).parent, "127.0.0.1"
SWIFT = """[swift-hash]
swift_hash_path_prefix = a
swift_hash_path_suffix = z

[storage-policy:0]
name = one
default = yes
"""


def main(folder: Path) -> None:
    """Write the configuration below ``folder``, start the four servers and wait."""
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT)
    utils.SWIFT_CONF_FILE = str(folder / "swift.conf")
    utils.HASH_PATH_PREFIX, utils.HASH_PATH_SUFFIX = b"a", b"z"
    sockets = {name: eventlet.listen((HOST, 0)) for name in ("account", "container", "object", "proxy")}
    for name in ("account", "container", "object"):
        write_ring(folder / f"{name}.ring.gz", sockets[name].getsockname()[1])
        write_config(folder, name, HERE / "server.conf")
    write_config(folder, "proxy", HERE / "proxy.conf")
    servers = [eventlet.spawn(serve, sockets[name], folder / f"{name}.conf") for name in sockets]
    print(sockets["proxy"].getsockname()[1], flush=True)
    for server in servers:
        server.wait()


def write_ring(path: Path, port: int) -> None:
    """A ring of one device: four partitions, one replica."""
    ring = RingBuilder(part_power=2, replicas=1, min_part_hours=1)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": HOST, "port": port, "device": "d1"})
    ring.rebalance()
    ring.get_ring().save(str(path))


def write_config(folder: Path, name: str, template: Path) -> None:
    """Fill in a configuration's folder and the server's name."""
    (folder / f"{name}.conf").write_text(Template(template.read_text()).substitute(folder=folder, name=name))


def serve(socket: eventlet.greenio.GreenSocket, config: Path) -> None:
    """Serve what ``config`` describes."""
    app = loadapp(str(config), global_conf={"log_requests": "false"})
    wsgi.server(
        socket, app, log_output=False, protocol=SwiftHttpProtocol, max_size=256, capitalize_response_headers=False
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

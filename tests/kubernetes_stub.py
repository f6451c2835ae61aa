"""A Kubernetes API as far as TrainJobs need one: real HTTPS, a pod's service account, and a script of replies."""

import datetime
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "the-pods-token"
COLLECTION = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
Job = dict[str, Any]


class KubernetesStub:
    """Keeps TrainJobs; :attr:`controller` says what a job's status is each time somebody looks.

    Attributes:
        account: a pod's service account folder: token, certificate, namespace.
        requests: method and path of each request that was answered.
        faults: replies to the next requests instead of the true ones: an HTTP status, or 0 for a dropped connection.
    """

    def __init__(self, folder: Path, controller: Callable[[Job], Job]) -> None:
        self.controller = controller
        self.jobs: dict[str, Job] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[int] = []
        self.account = folder / "account"
        self.account.mkdir(parents=True)
        (self.account / "token").write_text(TOKEN)
        (self.account / "namespace").write_text("team")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*_certificate(folder, self.account / "ca.crt"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """What Kubernetes tells every pod."""
        host, port = self.server.server_address[:2]
        return {"KUBERNETES_SERVICE_HOST": str(host), "KUBERNETES_SERVICE_PORT": str(port)}

    def stop(self) -> None:
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body of the reply."""
        collection, _, name = path.partition("?")[0].removeprefix(COLLECTION).partition("/")
        assert not collection, path
        match method:
            case "POST" if (new := body["metadata"]["name"]) in self.jobs:
                return 409, _failure(409, "AlreadyExists", f'trainjobs.trainer.kubeflow.org "{new}" already exists')
            case "POST":
                self.jobs[new] = body
                return 201, body
            case "GET" | "DELETE" if name not in self.jobs:
                return 404, _failure(404, "NotFound", f'trainjobs.trainer.kubeflow.org "{name}" not found')
            case "DELETE":
                assert "propagationPolicy=Foreground" in path
                return 200, self.jobs.pop(name)
            case _:
                job = self.jobs[name]
                job["status"] = self.controller(job)
                return 200, job


def condition(kind: str, message: str = "", reason: str = "") -> Job:
    """The status of a job that has ended."""
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def _failure(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def _handler(stub: KubernetesStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fault = stub.faults.pop(0) if stub.faults else None
            if fault == 0:
                self.connection.close()
                return
            assert self.headers["authorization"] == f"bearer {TOKEN}"
            if fault is None:
                stub.requests.append((self.command, self.path))
                status, reply = stub.answer(self.command, self.path, body)
            else:
                status, reply = fault, _failure(fault, "Broken", "not now")
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _do

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _certificate(folder: Path, public: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public, private

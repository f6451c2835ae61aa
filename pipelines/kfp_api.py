"""Kubeflow Pipelines' API through kfp's client: with an end to every wait, and one clear error where it fails.

kfp's client brings the ways to sign in. Left to itself it waits for an answer for ever, takes a login page for an empty
answer, and prints addresses of its own pages.
"""

import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

import kfp
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import ApiException

from components.cluster_config import ClusterConfig
from components.errors import UserError

ENDPOINT, TOKEN, TOKEN_FILE = "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH"
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
GATEWAYS = (502, 503, 504)  # something before the API gave up on it: the API may have done what was asked
# Questions are asked again; what creates something is not, unless the connection was not even made.
RETRIES = urllib3.Retry(total=2, backoff_factor=0.5, status_forcelist=GATEWAYS, raise_on_status=False)

T = TypeVar("T")


class Unanswered(UserError):
    """A request that got no answer: whether it was carried out is unknown."""


@dataclass(frozen=True)
class Api:
    """A client that has been answered once; ``namespace`` is None on an installation for one user."""

    client: kfp.Client
    endpoint: str
    namespace: str | None

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Turn what goes wrong inside into a ``UserError`` that says it was about ``what``."""
        with _told(self.endpoint, what), redirect_stdout(io.StringIO()):
            yield

    def run_page(self, run_id: str) -> str:
        """The address of a run's page for people."""
        base = os.environ.get("KF_PIPELINES_UI_ENDPOINT", self.endpoint).rstrip("/")
        return f"{base}/#/runs/details/{run_id}"


def connect(cluster: ClusterConfig) -> Api:
    """A client for the config's cluster.

    A token comes from ``KF_PIPELINES_TOKEN``, in a pod from the file that ``KF_PIPELINES_SA_TOKEN_PATH`` names; what
    else kfp reads (its context file, ``KF_PIPELINES_IAP_*``) counts too. ``KF_PIPELINES_UI_ENDPOINT`` is where people
    find its pages, where that is another address.

    Raises:
        UserError: there is no endpoint, nobody answers there, what answers is not this API, or we are not let in.
    """
    endpoint = (cluster.endpoint or os.environ.get(ENDPOINT, "")).rstrip("/")
    if not endpoint:
        raise UserError(
            "no Kubeflow Pipelines is named", remedy=f"set cluster.endpoint or {ENDPOINT} (http(s)://host:port)"
        )
    token = os.environ.get(TOKEN)
    in_pod = ServiceAccountTokenVolumeCredentials() if TOKEN_FILE in os.environ and not token else None
    with _told(endpoint, "answer"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = _Client(
            host=endpoint,
            namespace=cluster.namespace or "kubeflow",
            existing_token=token,
            credentials=in_pod,
            ssl_ca_cert=cluster.ca_bundle,
        )
        several_users = client.get_kfp_healthz().multi_user
    namespace = cluster.namespace or client.get_user_namespace() or None
    if several_users and not namespace:
        raise UserError(f"{endpoint} serves several users, each in a namespace", remedy="set cluster.namespace")
    return Api(client, endpoint, namespace)


class _Client(kfp.Client):
    """kfp's client; its constructor asks for the API's health, so that is where waiting gets its end."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask once; kfp's own way is five times over 25 seconds, with a traceback each."""
        api_client = self._healthz_api.api_client
        pool = api_client.rest_client.pool_manager
        if not isinstance(pool.request, _Patient):
            pool.request = _Patient(pool.request)
        health = self._healthz_api.healthz_service_get_healthz()
        kind = api_client.last_response.getheader("content-type") or ""
        if "json" not in kind:  # kfp would read it as an answer with nothing in it
            raise _NotTheApi(kind)
        return health


class _NotTheApi(Exception):
    """Something else answered."""


@dataclass(frozen=True)
class _Patient:
    """urllib3's ``request`` with an end to its patience; kfp passes none on."""

    request: Callable[..., Any]

    def __call__(self, *args: Any, **settings: Any) -> Any:
        limit = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
        return self.request(*args, **{**settings, "timeout": limit, "retries": RETRIES})


@contextmanager
def _told(endpoint: str, what: str) -> Iterator[None]:
    where = f"Kubeflow Pipelines at {endpoint}"
    try:
        yield
    except ApiException as error:
        raise _refusal(where, what, error) from error
    except urllib3.exceptions.HTTPError as error:
        if isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError):
            raise UserError(
                f"{where} cannot be trusted: {_reason(error)}", remedy="name its certificates: cluster.ca_bundle"
            ) from error
        raise Unanswered(
            f"{where} did not {what}: {_reason(error)}",
            remedy=f"check cluster.endpoint or {ENDPOINT}, and the way there (VPN, port-forward, proxy)",
        ) from error
    except _NotTheApi as error:
        raise UserError(
            f"what answers at {endpoint} is not the API of Kubeflow Pipelines ({error or 'no content type'})",
            remedy=f"often it is a login page: set {TOKEN}; or the path is not the API's, often it ends in /pipeline",
        ) from error


def _reason(error: Exception) -> str:
    """The innermost reason, on one line; urllib3 wraps it several times."""
    inner = getattr(error, "reason", None)
    text = str(inner if isinstance(inner, Exception) else error)
    return text.rpartition("object at 0x")[2].partition(": ")[2] or text if "object at 0x" in text else text


def _refusal(where: str, what: str, error: ApiException) -> UserError:
    """What an answer outside 200-299 means."""
    says = _message(error)
    if error.status == 401:
        return UserError(
            f"{where} does not know who asks (401)", remedy=f"set {TOKEN} to a token that is valid; it may have expired"
        )
    if error.status == 403:
        return UserError(
            f"{where} will not {what} for you (403): {says}",
            remedy="check cluster.namespace and your role there; infra/ has one for submitters",
        )
    if error.status in GATEWAYS:
        return Unanswered(f"{where} did not {what} ({error.status}): {says}", remedy="try again in a while")
    remedy = "see the log of its API server"
    if error.status in (400, 404):
        remedy = "check the id that was given, and cluster.* in the config"
    return UserError(f"{where} did not {what} ({error.status}): {says}", remedy=remedy)


def _message(error: ApiException) -> str:
    """What the API says, else the status in words."""
    try:
        found = json.loads(error.body or "")
    except ValueError:
        found = None
    says = found.get("message") or found.get("error") if isinstance(found, dict) else None
    return str(says or error.reason).strip().splitlines()[0][:300]


def called(name: str) -> str:
    """A filter for things of this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def once(find: Callable[[], T | None], create: Callable[[], T]) -> T:
    """What is there already, else what gets created; where the answer to that is lost, what is there by then.

    Raises:
        Unanswered: and what was to be created is not there.
    """
    found = find()
    if found is not None:
        return found
    try:
        return create()
    except Unanswered:
        found = find()
        if found is None:
            raise
        return found

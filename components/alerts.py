"""News that need a person, as a POST of JSON to a webhook.

The address comes from the environment variable that ``alerts.webhook_env`` names, since it often holds a secret; where
the variable is unset nothing is sent. An alert that cannot be delivered never fails a run: what went wrong comes back
as a sentence (without the address) to be said in the run's log.

The payload, version 1:

    schema    1
    event     run_failed, promotion_refused, promotion_waits or drift
    text      one sentence for people
    name      of the ensemble, as in the config
    run_name  of the pipeline run
    time      ISO 8601, UTC
    details   by event, see docs/operations.md
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from components.config import RunConfig

Event = Literal["run_failed", "promotion_refused", "promotion_waits", "drift"]

SCHEMA = 1
TIMEOUT = (5, 10)  # seconds to connect, and to an answer
RETRIES = 3
PAUSE = 0.5  # seconds before the second retry; each later pause is twice as long
TRANSIENT = (429, 500, 502, 503, 504)


def alert(config: RunConfig, run_name: str, event: Event, text: str, details: Mapping[str, Any]) -> str:
    """Send an alert if anybody asked for alerts.

    Returns:
        '' where it was delivered or nobody asked, else what went wrong.
    """
    variable = config.alerts.webhook_env
    address = os.environ.get(variable)
    if not address:
        return ""
    payload = {
        "schema": SCHEMA,
        "event": event,
        "text": text,
        "name": config.name,
        "run_name": run_name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "details": dict(details),
    }
    trouble = _post(address, payload)
    return trouble and f"the alert '{event}' did not reach the webhook in {variable}: {trouble}"


def alert_failure(config: RunConfig, run_name: str, what: str, details: Mapping[str, Any]) -> str:
    """Send the alert that a run failed. Returns as :func:`alert`."""
    return alert(config, run_name, "run_failed", f"run {run_name} of {config.name} failed: {what}", details)


def _post(address: str, payload: Mapping[str, Any]) -> str:
    """'' or what went wrong; errors of requests name the address, so only their kind is passed on."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        RETRIES,
        backoff_factor=PAUSE,
        status_forcelist=TRANSIENT,
        allowed_methods=("POST",),
        raise_on_status=False,
        respect_retry_after_header=False,  # it may ask for an hour
    )
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        try:
            answer = session.post(address, json=payload, timeout=TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:
            return f"{type(error).__name__} after {RETRIES + 1} attempts at most"
    return "" if answer.status_code < 300 else f"HTTP {answer.status_code}"

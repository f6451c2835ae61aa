"""An S3 bucket as an object store, AWS's or another's.

Credentials come from the default chain (environment, profile, web identity, instance role), never from the config.
Requests are tried again as botocore's standard mode does it (exponential backoff with jitter); a body that breaks off,
which botocore leaves to its caller, is asked for again too.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from s3transfer.exceptions import S3DownloadFailedError

from components.config import StorageConfig
from components.errors import UserError
from components.object_store import Entry

ATTEMPTS = 5
SECONDS_TO_CONNECT, SECONDS_OF_SILENCE = 10, 60
MISSING = {"404", "NoSuchKey"}
BROKEN_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
TAKEN, BUSY = {"412", "PreconditionFailed"}, {"409", "ConditionalRequestConflict"}
DENIED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}


class NoAnswer(BotoCoreError):
    """A request that was never answered, in all the attempts it had."""

    fmt = "no answer within {seconds} seconds, {attempts} times in a row"


class S3Store:
    """The keys under ``s3://bucket/prefix``. Large files travel in parts and in parallel, never whole in memory.

    Every method raises ``UserError`` where the bucket is missing, access is denied or the endpoint does not answer.
    """

    def __init__(self, bucket: str, prefix: str, storage: StorageConfig) -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._endpoint = storage.endpoint_url or "AWS"
        self._client = _client(storage)
        self._encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": storage.kms_key} if storage.kms_key else {}
        )

    def uri(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return f"s3://{self.bucket}/{self._full(key)}"

    def exists(self, key: str) -> bool:
        """Whether an object stands under ``key``."""
        try:
            with self._errors(key):
                self._client.head_object(Bucket=self.bucket, Key=self._full(key))
        except KeyError:
            return False
        return True

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises ``KeyError`` where there is none."""
        with self._errors(key):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    data: bytes = self._client.get_object(Bucket=self.bucket, Key=self._full(key))["Body"].read()
                    return data
                except BROKEN_OFF:
                    if attempt == ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    def write(self, key: str, data: bytes) -> None:
        """Put ``data`` under ``key``, replacing what was there."""
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data, **self._encryption)

    def create(self, key: str, data: bytes) -> None:
        """Put ``data`` under ``key`` unless something stands there, which then stays."""
        where = {"Bucket": self.bucket, "Key": self._full(key)}
        with self._errors(key):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._client.put_object(**where, Body=data, IfNoneMatch="*", **self._encryption)
                    return
                except ClientError as error:
                    code = error.response.get("Error", {}).get("Code", "")
                    if code in TAKEN:
                        return
                    if code not in BUSY or attempt == ATTEMPTS:
                        raise
                time.sleep(0.1 * attempt)  # AWS: another write is under way, and may yet fail

    def upload(self, path: Path, key: str) -> None:
        """Put a file under ``key``; it is visible only once complete."""
        with self._errors(key), path.open("rb") as file:
            self._client.upload_fileobj(file, self.bucket, self._full(key), ExtraArgs=self._encryption)

    def download(self, key: str, path: Path) -> None:
        """Write the object to ``path``. Raises ``KeyError`` where there is none.

        The transfer manager writes beside ``path`` and renames, so that ``path`` is whole or not there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(key):
            self._client.download_file(self.bucket, self._full(key), str(path))

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that start with ``prefix``, sorted."""
        return (entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """As :meth:`keys`, in S3's order, which is sorted, with size and time; a console's folder markers left out."""
        start = len(self._full(""))
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._full(prefix)
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        yield Entry(entry["Key"][start:], entry["Size"], entry["LastModified"])

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._full(key))

    def link(self, key: str, seconds: int, content_type: str) -> str:
        """A presigned address to read the object at; it ends earlier where the credentials in use do."""
        asked = {"Bucket": self.bucket, "Key": self._full(key), "ResponseContentType": content_type}
        with self._errors(key):
            return str(self._client.generate_presigned_url("get_object", asked, ExpiresIn=seconds))

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn the client's exceptions into ``KeyError`` and ``UserError``."""
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "404" and not self._has_bucket():
                code = "NoSuchBucket"
            if code in MISSING:
                raise KeyError(key) from None
            raise self._user_error(code, error) from error
        except (BotoCoreError, Boto3Error, S3DownloadFailedError) as error:
            raise UserError(
                f"{self.uri(key)} cannot be reached at {self._endpoint}: {error}",
                remedy="check storage.endpoint_url, storage.ca_bundle, the network, and that there are credentials "
                "(environment, profile or role)",
            ) from error

    def _has_bucket(self) -> bool:
        """A HEAD request's 404 does not say what is missing."""
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            return bool(error.response.get("Error", {}).get("Code") != "404")
        return True

    def _user_error(self, code: str, error: ClientError) -> UserError:
        if code == "NoSuchBucket":
            return UserError(
                f"there is no bucket {self.bucket!r} at {self._endpoint}", remedy="create it, or mend the uri"
            )
        if code == "RequestTimeTooSkewed":
            return UserError(
                f"{self._endpoint} refuses requests because this machine's clock is wrong",
                remedy="set the clock (timedatectl set-ntp true)",
            )
        if code in DENIED:
            return UserError(
                f"access to s3://{self.bucket}/{self.prefix} is denied ({code})",
                remedy="the credentials in use need to list, get, put and delete objects there",
            )
        return UserError(
            f"s3://{self.bucket}/{self.prefix}: {error}",
            remedy="if it stays so, see the server's log, and check storage.endpoint_url, region and addressing",
        )


def _client(storage: StorageConfig) -> Any:
    # Other servers may not know the checksums AWS now adds to every request; manifests carry sha256 anyway.
    checksums: Any = "when_required" if storage.endpoint_url else "when_supported"
    config = Config(
        signature_version="s3v4",  # links too, which are signed in the older way by default and then lack KMS
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=SECONDS_TO_CONNECT,
        read_timeout=SECONDS_OF_SILENCE,
        s3={"addressing_style": storage.addressing},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
    try:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=storage.endpoint_url,
            region_name=storage.region,
            verify=storage.ca_bundle,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"storage: {error}", remedy="check endpoint_url, region and AWS_PROFILE") from error
    client.meta.events.register("after-call-error.s3", _give_up_on_silence)
    return client


def _give_up_on_silence(exception: Exception, **_: Any) -> None:
    """Tell a server that is silent from a body that breaks off: botocore raises the same error for both.

    A body is asked for again by whoever reads it, this module or the transfer manager; a request that botocore has
    made five times would be made twenty-five times.
    """
    if isinstance(exception, ReadTimeoutError):
        raise NoAnswer(seconds=SECONDS_OF_SILENCE, attempts=ATTEMPTS) from exception

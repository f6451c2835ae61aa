"""Trouble that no step foresees and every user can mend: a full disk, an MLflow that stopped answering.

Steps raise such errors deep inside libraries. Told as a traceback they would look like a bug; here they are told as
what they are, with what to do. Nothing finished is lost by them: it stands in the store.
"""

import errno
import sys

from components.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SAYS_FULL = ("No space left on device", "Disk quota exceeded", "File too large")  # libraries keep the words only
# MLflow's codes for what is not ours: other codes (a wrong value, say) are a bug of ours and keep their traceback.
MLFLOWS = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
GOES_ON = "what is finished stays where it is, and the same command goes on from there"


def told(error: BaseException) -> UserError | None:
    """``error`` in words for the user, or None where it is none of these."""
    if _is_full(error):
        return UserError(f"no space is left to write to: {error}", remedy=f"make room; {GOES_ON}")
    mlflow = sys.modules.get("mlflow.exceptions")
    requests = sys.modules.get("requests.exceptions")
    if mlflow is not None and isinstance(error, mlflow.MlflowException) and error.error_code in MLFLOWS:
        return _mlflow(error)
    if requests is not None and isinstance(error, requests.RequestException):
        return _mlflow(error)
    return None


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return isinstance(error, Exception) and any(words in str(error) for words in SAYS_FULL)


def _mlflow(error: BaseException) -> UserError:
    first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    if "database is locked" in str(error):
        return UserError(
            "MLflow's database is locked by another process",
            remedy=f"end whatever holds it (a viewer, a backup), or use an MLflow server; {GOES_ON}",
        )
    return UserError(
        f"MLflow did not do what was asked of it: {first}", remedy=f"see that its server and store are well; {GOES_ON}"
    )

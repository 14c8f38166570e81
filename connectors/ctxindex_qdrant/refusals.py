"""What qdrant-client's exceptions mean: worth another try or not, and what to tell a person."""

from __future__ import annotations

import json

from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ctxindex.errors import IndexNotFoundError, StoreError


def may_pass(error: Exception) -> bool:
    """Connection errors and timeouts, 408, 429 and 5xx (501 aside)."""
    if isinstance(error, ResponseHandlingException):
        return _is_transport(error.source)
    if isinstance(error, UnexpectedResponse):
        status = error.status_code or 0
        return status in (408, 429) or (status >= 500 and status != 501)
    return isinstance(error, ResourceExhaustedResponse)


def asked_to_wait(error: Exception) -> float | None:
    """Seconds, where the server named them."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        value = str(error.headers.get("Retry-After", "")) if error.headers else ""
        return float(value) if value.isdecimal() else None
    return None


def translated(error: Exception, address: str, label: str) -> Exception:
    """Our exception for theirs; `error` itself where it is not about the database."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, ResponseHandlingException):
        return StoreError(_unanswered(error.source, address))
    if isinstance(error, UnexpectedResponse):
        return _refused(error, address, label)
    if isinstance(error, ResourceExhaustedResponse):
        return StoreError(f"Qdrant at {address} is over its rate limit: {error}")
    if isinstance(error, ValueError) and "not found" in str(error):
        return IndexNotFoundError(f"{label} does not exist")
    return StoreError(f"Qdrant at {address} failed: {error or type(error).__name__}")


def _is_transport(source: object) -> bool:
    """Whether httpx, not the parser of an answer, complained (httpx itself is not our dependency)."""
    return type(source).__module__.partition(".")[0] in ("httpx", "httpcore") or isinstance(source, OSError)


def _unanswered(source: object, address: str) -> str:
    kind = type(source).__name__
    if "Timeout" in kind:
        return f"Qdrant at {address} did not answer in time ({kind}); is it overloaded?"
    if _is_transport(source):
        return f"cannot reach Qdrant at {address}: is it running, and is that its REST port? ({source})"
    return f"{address} answered something that is not Qdrant's: {str(source).splitlines()[0]}"


def _refused(error: UnexpectedResponse, address: str, label: str) -> StoreError:
    reason = _reason(error)
    if error.status_code in (401, 403):
        return StoreError(f"Qdrant at {address} refuses access: set QDRANT_API_KEY to a key that may write ({reason})")
    if error.status_code == 404 and ("exist" in reason or "not found" in reason.lower()):
        return IndexNotFoundError(f"{label} does not exist")
    return StoreError(f"Qdrant at {address} refused a request: {error.status_code} {reason}")


def _reason(error: UnexpectedResponse) -> str:
    try:
        return str(json.loads(error.content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        text = error.content.decode("utf-8", "replace").strip()
        return text.splitlines()[0][:300] if text else error.reason_phrase

"""What an S3 server, or the way to it, says is wrong, as vibeD's errors.

obstore 0.12 tells neither status nor code apart from its text, in which both stand: the status as "non-2xx status code:
403 Forbidden", then the body with its `<Code>`, which an answer to HEAD has not. Its types say little: a 404 is a
FileNotFoundError also where there is no bucket, or (versitygw) no such access key.
Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and those of MinIO, Ceph and versitygw.
"""

from __future__ import annotations

import re

from vibed.apps.errors import VibedError
from vibed.sources.errors import (
    BucketMissing,
    SourceMissing,
    SourceStoreFailed,
    SourceStoreRefused,
    SourceStoreSlow,
    SourceStoreUnreachable,
    StorageFull,
)

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")

_NO_OBJECT = frozenset({"NoSuchKey", "NoSuchVersion"})
_FULL = frozenset({"QuotaExceeded", "NoSpaceLeftOnDevice", "XMinioStorageFull"})
_SLOW = frozenset({"SlowDown", "SlowDownWrite", "SlowDownRead", "RequestTimeout", "ServiceUnavailable"})
_CLOCK = frozenset({"RequestTimeTooSkewed"})
_STRANGERS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})
_DAMAGED = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"})

_KEYS = "the operator: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with which vibeD is started"
_MAY = (
    "the operator: let this key have s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on the"
    " bucket's objects, and s3:ListBucket on the bucket"
)


def told(error: Exception, doing: str, where: str) -> VibedError:
    """The error for what obstore raised while `doing` something with the store at `where`."""
    text = str(error)
    code = found[1] if (found := _CODE.search(text)) else ""
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    said = f" ({found[1].strip()})" if (found := _MESSAGE.search(text)) else ""
    if code in _NO_OBJECT or (status == 404 and not code):
        return SourceMissing("the source store has no such source")
    if code == "NoSuchBucket":
        return BucketMissing(
            f"there is no bucket for {doing} at {where}", hint="the operator: make it, or correct s3_bucket"
        )
    if code in _FULL:
        return StorageFull(
            f"the source store is full or its quota is used up{said}",
            hint="the operator: give the bucket more room; deleting apps frees what no version needs",
        )
    if code in _SLOW or status in (429, 503):
        return SourceStoreSlow(
            f"the source store at {where} asks for patience while {doing}{said}", hint="try again in a minute"
        )
    if code in _DAMAGED:
        return SourceStoreFailed(
            f"what arrived at the source store was not what was sent, while {doing}{said}", hint="try again"
        )
    if code in _CLOCK:
        return SourceStoreRefused(
            f"the source store's clock and this machine's differ too much{said}", hint="the operator: set the clock"
        )
    if code in _STRANGERS or status == 401 or (status == 404 and code):
        return SourceStoreRefused(f"the source store does not know vibeD's key: {code or status}{said}", hint=_KEYS)
    if status == 403:
        return SourceStoreRefused(f"the source store forbids {doing}{said}", hint=_MAY)
    if status in (301, 307):
        return SourceStoreRefused(
            f"the bucket is elsewhere: the store answers {status}{said}",
            hint="the operator: set s3_region and s3_endpoint to where the bucket is",
        )
    if status:
        return SourceStoreFailed(
            f"the source store answers {status} {code} while {doing}{said}",
            hint="try again; see the log of the source store",
            retryable=status >= 500,
        )
    if "credential" in text.lower() or "169.254.169.254" in text:
        return SourceStoreRefused(
            "vibeD has no key for the source store: neither in its environment nor from this machine's role",
            hint=_KEYS,
        )
    if "Timeout" in text or "timed out" in text:
        return SourceStoreSlow(
            f"the source store at {where} did not answer in time while {doing}", hint="try again in a minute"
        )
    return SourceStoreUnreachable(
        f"the source store at {where} cannot be reached while {doing}: {_cause(text)}",
        hint="try again; the operator: check that it runs, and s3_endpoint",
    )


def _cause(text: str) -> str:
    """The innermost cause that the debug part names, else the first line."""
    for words in ("Connection refused", "Connection reset", "dns error", "certificate", "Network is unreachable"):
        if words.lower() in text.lower():
            return words.lower()
    return text.splitlines()[0][:200] if text else "no more is known"

"""One bucket as boto3 speaks to it: everything that botocore raises becomes an error of ours here.

What the store's verbs mean is in `s3.py` and beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from dr_pipelines.errors import AccessDenied, DrError, ObjectNotFound, StoreError, StoreUnavailable
from dr_pipelines.storage.base import Pieces
from dr_pipelines.storage.refusals import no_such_service, redirected, refusal, unreachable
from dr_pipelines.storage.s3_wire import Wire

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PIECE = 1024 * 1024
"""What is read at once: little enough to be still in the processor's cache when it is hashed and sent on."""
_MD5 = re.compile("[0-9a-f]{32}")
_BY_WIRE = {"Range": "Range", "IfMatch": "If-Match"}
_UNKNOWN = ("NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "InvalidRequest", "InvalidArgument")
# What boto3 raises while it reads a body that ends early or a connection that breaks.
_BROKEN = (HTTPClientError, OSError, EOFError)


class S3Bucket:
    """`bucket` is its name there, `name` the store's for messages. Calls of `client` belong under `told`."""

    def __init__(self, client: S3Client, bucket: str, name: str) -> None:
        self.client = client
        self.bucket = bucket
        self.name = name
        self.wire = Wire(client, bucket)

    def head(self, key: str, **which: Any) -> Any:
        """Raises `ObjectNotFound`."""
        with self.told(key):
            return self._whole(self.client.head_object(Bucket=self.bucket, Key=key, **which))

    def head_by_get(self, key: str) -> Any:
        """The same, where HEAD does not tell whether the object is there: its bytes are left. Raises as `head`."""
        with self.told(key):
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
            answer["Body"].close()
        return self._whole(answer)

    def read(self, key: str, **which: Any) -> Iterator[bytes]:
        """The object, version or range in pieces. Raises `ObjectNotFound` before the first."""
        answer = self.get(key, **which)
        return Pieces(self.pieces(key, answer), _md5_of(answer))

    def get(self, key: str, **which: Any) -> Any:
        """As `get_object` answers; `pieces` reads on. Raises `ObjectNotFound`."""
        with self.told(key):
            plain = not which.keys() - _BY_WIRE.keys()
            headers = {_BY_WIRE[name]: value for name, value in which.items()} if plain else {}
            answer: Any = self.wire.get(key, headers) if plain else None
            if answer is None:
                answer = self.client.get_object(Bucket=self.bucket, Key=key, **which)
        start = which.get("Range", "").partition("-")[0].replace("=", " ")
        if start and not answer.get("ContentRange", "").startswith(f"{start}-"):
            raise self.no_s3()
        return answer

    def page(self, prefix: str, size: int, token: str | None = None) -> tuple[list[Any], str | None]:
        """Up to `size` entries of the listing, and the token of what comes after them; None at its end."""
        asked: Any = {"ContinuationToken": token} if token else {}
        with self.told(prefix):
            page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=size, **asked)
        following = page.get("NextContinuationToken") if page.get("IsTruncated") else None
        # A web page is no listing, and no proof of an empty one; nor is one whole that says that there is more.
        if "IsTruncated" not in page or (page["IsTruncated"] and following in (None, "", token)):
            raise self.no_s3()
        return [*page.get("Contents", [])], following

    def pieces(self, key: str, answer: Any) -> Iterator[bytes]:
        expected, seen = answer.get("ContentLength"), 0
        with self.told(key), answer["Body"] as stream:
            while piece := stream.read(_PIECE):
                seen += len(piece)
                yield piece
        if expected is not None and seen != expected:
            raise StoreUnavailable(
                f"{self.name}: {key} ended after {seen} of {expected} bytes", hint="run the command again."
            )

    def ask(self, question: Callable[..., Any], right: str) -> Any:
        """The bucket's answer about itself: empty where it has no such setting, None where the endpoint does not know
        the question. Raises `AccessDenied`, which names the right to give."""
        try:
            with self.told(self.bucket):
                return question(Bucket=self.bucket)
        except ObjectNotFound:
            return {}
        except AccessDenied as error:
            hint = f"give this key the right {right}."
            raise AccessDenied(f"{self.name}: may not ask how {self.bucket} is set up", hint=hint) from error
        except StoreError as error:
            if is_unknown(error):
                return None
            raise

    @contextmanager
    def told(self, key: str) -> Iterator[None]:
        """Raises what botocore raises as an error of ours, which has the former as its cause."""
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, key) from error
        except RecursionError as error:  # boto3 asks a redirect's target for the bucket's region, again and again
            raise redirected(self.name, self._endpoint, key) from error
        except ParamValidationError as error:
            raise StoreError(f"{self.name}: {error}", hint="mend the store in the plan.") from error
        except (BotoCoreError, *_BROKEN) as error:
            if isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), RecursionError):
                raise redirected(self.name, self._endpoint, key) from error
            if "Credentials" in type(error).__name__ or "Token" in type(error).__name__:
                raise AccessDenied(f"{self.name}: {error}", hint="check the keys of this store in the plan.") from error
            raise unreachable(self.name, self._endpoint, str(error)) from error

    def _whole(self, head: Any) -> Any:
        if not {"ContentLength", "LastModified"} <= set(head):
            raise self.no_s3()
        return head

    def no_s3(self) -> StoreError:
        return no_such_service(self.name, self._endpoint, "S3")

    @property
    def _endpoint(self) -> str:
        return str(self.client.meta.endpoint_url)

    def _is_there(self) -> bool:
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            return _status(error) != 404
        except (BotoCoreError, *_BROKEN):
            return False
        return True

    def _refusal(self, error: ClientError, key: str) -> DrError:
        status, code = _status(error), _code(error)
        if status == 404 and not self._is_there():
            # A HEAD has no body, and some endpoints send no codes: a missing bucket must not pass for proven absence.
            code = "NoSuchBucket"
        message = error.response.get("Error", {}).get("Message", "")
        where = f"{self._endpoint}/{self.bucket}"
        return refusal(self.name, where, key, status=status, code=code, message=message)


def _md5_of(answer: Any) -> str | None:
    """An ETag is the MD5 of what was put in one piece, unless the service encrypts it with a key that it does not own.
    Source: the S3 API reference, Object."""
    etag = str(answer.get("ETag", "")).strip('"')
    own = answer.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in answer
    return etag if own and _MD5.fullmatch(etag) else None


def is_unknown(error: DrError) -> bool:
    """The endpoint does not know what it was asked about the bucket."""
    return status_of(error) in (405, 501) or code_of(error) in _UNKNOWN


def status_of(error: DrError) -> int:
    """The HTTP status that the service gave with this error, 0 where it gave none."""
    return _status(error.__cause__)


def code_of(error: DrError) -> str:
    """The service's own code for this error, empty where it gave none."""
    return _code(error.__cause__)


def _status(error: BaseException | None) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: BaseException | None) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""

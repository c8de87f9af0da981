"""What a filesystem library had against something, in one line with what to set.

Each library has errors of its own, which they seldom share with others or with the operating system. What is told of
them is what they say, read once, here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from recsys_ray.base.errors import StorageError
from recsys_ray.base.secrets import mask

LIBRARIES = (
    "adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "paramiko", "requests", "s3fs",
    "smbclient", "urllib3",
)  # fmt: skip
CREDENTIALS = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
    "hdfs": "HADOOP_USER_NAME, or a Kerberos ticket by kinit",
}
"""Environment variables by kind of address."""
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL and AWS_DEFAULT_REGION", "gs": "STORAGE_EMULATOR_HOST", "hdfs": "the host"}
KINDS = {
    "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "adl": "az",
    "hdfs": "hdfs", "webhdfs": "hdfs",
}  # fmt: skip


def _any_of(*signs: str) -> re.Pattern[str]:
    return re.compile("|".join(signs), re.IGNORECASE)


_NO_JAVA = _any_of("libhdfs", "libjvm", "dlopen", "HADOOP_HOME", "JAVA_HOME", "CLASSPATH")
_NO_CREDENTIALS = _any_of(
    "NoCredentials", "PartialCredentials", "ProfileNotFound", "DefaultCredentials", "locate credentials",
    "CredentialUnavailable", "anonymous caller", "account_name.*(?:provided|missing)",
    "must provide either a connection_string",
)  # fmt: skip
_NO_BUCKET = _any_of(
    "NoSuchBucket", "bucket does not exist", "ContainerNotFound", "container does not exist", "invalid bucket"
)
_ELSEWHERE = _any_of(
    "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocation", "specified endpoint", "region"
)
_REFUSED = _any_of(
    "Access ?Denied", "Forbidden", r"\b40[13]\b", "Unauthorized", "Access ?Key ?Id", "SignatureDoesNotMatch",
    "signature we calculated", "ExpiredToken", "InvalidToken", "token.*(?:expired|invalid)", "Authentication",
    "RefreshError",
)  # fmt: skip
_UNREACHABLE = _any_of(
    "EndpointConnection", "Timeout", "timed out", "(?:Could not|Cannot) connect", "ClientConnector",
    "ServerDisconnected", "Name or service", "getaddrinfo", "gaierror", "failure in name resolution",
    "Connection ?(?:Error|Refused|Reset)", "Connect(?:ion)? call failed", "MaxRetryError", "NewConnection",
    "ServiceRequestError", "unreachable",
)  # fmt: skip


def storage_error(url: str, error: BaseException) -> StorageError:
    """What is told of an error that a filesystem had with an address."""
    return StorageError(mask(f"{url}: {_said(url, error)}"))


def foreign_storage_error(error: BaseException) -> StorageError | None:
    """The same of an error that came up while a file was read, where only the library is known; None if of no such."""
    if not _is_of_a_library(error):
        return None
    return StorageError(mask(f"storage: {_said('', error)}"))


def _said(url: str, error: BaseException) -> str:
    kind = KINDS.get(url.partition("://")[0], "")
    text = " ".join(f"{type(one).__name__}: {one}" for one in _chain(error))
    first = first_line(error)
    if "://" not in url and isinstance(error, OSError) and not _is_of_a_library(error):
        return "no such file or directory" if isinstance(error, FileNotFoundError) else first
    variables = CREDENTIALS.get(kind, "the credentials of this storage")
    if kind == "hdfs" and _NO_JAVA.search(text):
        return "HDFS needs Java and libhdfs of Hadoop; set JAVA_HOME, HADOOP_HOME and CLASSPATH"
    if _NO_CREDENTIALS.search(text):
        return f"no credentials were found ({first}); set {variables}"
    if _NO_BUCKET.search(text):
        return f"no such bucket or container ({first}); create it, or correct the address"
    if _UNREACHABLE.search(text):
        return f"can't be reached ({first}); check the network and {ENDPOINTS.get(kind, 'the address')}"
    if kind == "s3" and _ELSEWHERE.search(text):
        return f"the bucket is in another region ({first}); set AWS_DEFAULT_REGION"
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return f"access is refused ({first}); check {variables}, and what they may do there"
    if isinstance(error, FileNotFoundError):
        return "no such file or directory"
    return first


def _is_of_a_library(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in LIBRARIES


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def first_line(error: BaseException) -> str:
    """Of what an error says; its kind where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]

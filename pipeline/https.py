"""Requests that stay on https through every redirect, and whose faults say whether to try again."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urljoin, urlsplit

import requests

from pipeline.errors import PipelineError

MAX_HOPS = 10
TIMEOUT_S = (20.0, 60.0)  # to connect, and between two chunks
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class TransferError(Exception):
    """This server did not deliver; `again` says whether the same request may yet succeed."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


def check_url(url: str) -> None:
    """Raise PipelineError unless `url` is https, or http on this very machine."""
    with suppress(ValueError):  # urlsplit's, for a malformed host
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if secure and parts.hostname:
            return
    raise PipelineError(
        f"data.source: {url}: only https is accepted (plain http can be read and changed on its way); "
        "use an https URL, or download it yourself and name the path"
    )


def follow(url: str, location: str) -> str:
    """The next address of a redirect; raises TransferError where it would leave https, or is none."""
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        raise TransferError(f"redirects to {location}, which is no URL; refused", again=False) from None
    if scheme != urlsplit(url).scheme and scheme != "https":
        raise TransferError(f"redirects from https to {target}; refused", again=False)
    try:
        check_url(target)
    except PipelineError:
        raise TransferError(f"redirects to {target}, which is not https; refused", again=False) from None
    return target


@contextmanager
def requests_errors() -> Iterator[None]:
    """A fault of the network is worth another try; one of the URL or certificate is not."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise TransferError(f"TLS failed: {_innermost(error)}", again=False) from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise TransferError(str(error), again=False) from None
    except requests.exceptions.Timeout:
        raise TransferError("no answer in time", again=True) from None
    except requests.exceptions.RequestException as error:
        raise TransferError(f"connection failed: {_innermost(error)}", again=True) from None


def _innermost(error: BaseException) -> str:
    """requests wraps the operating system's words three deep."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _innermost(reason)
    return str(error).rpartition(">: ")[2] or type(error).__name__


def open_url(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """The answer after its redirects, each checked: requests itself would follow one to http."""
    for _ in range(MAX_HOPS):
        try:
            with requests_errors():
                response = session.get(
                    url, headers=headers, stream=True, allow_redirects=False, timeout=TIMEOUT_S
                )
        except ValueError as error:  # urllib's, of a redirect, at which requests looks without going there.
            raise TransferError(f"redirects to what is no URL ({error}); refused", again=False) from None
        if not response.is_redirect:
            return response
        response.close()
        url = follow(url, response.headers["Location"])
    raise TransferError(f"more than {MAX_HOPS} redirects", again=False)

"""What a machine's web server answers to whoever is outside both zones."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request


def get(url: str, seconds: float) -> str:
    """The body of an answer, asked for without any proxy.

    A server that is killed while it answers breaks off in the middle of a line, which is no OSError of Python's own.

    Raises:
        OSError: no answer came within `seconds`, or no whole one, or one that is not a success; it says which.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"{url}: {error.code} {error.read().decode(errors='replace')}") from None
    except (http.client.HTTPException, UnicodeDecodeError) as error:
        raise OSError(f"{url}: the answer broke off: {error!r}") from error

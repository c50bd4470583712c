"""Whether the hub of models and data sets answers: asked beforehand, since its clients retry for half a minute."""

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager


def hub_is_out_of_reach() -> bool:
    """Whether to look on this machine only."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if urllib.request.getproxies():
        return False  # the way out is not ours to judge
    hub = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((hub.hostname or "", hub.port or 443), timeout=5).close()
    except OSError:
        return True
    return False


@contextmanager
def data_sets_within_reach() -> Iterator[bool]:
    """Let the datasets library ask the hub only where that answers; gives whether it does."""
    import datasets  # takes seconds: only where it is needed
    from huggingface_hub import constants

    out_of_reach, before = hub_is_out_of_reach(), (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    if out_of_reach:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield not out_of_reach
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before

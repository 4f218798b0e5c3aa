"""Whether the Hugging Face hub answers: its libraries would ask again and again to find out, for more than a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE_S = 5.0
"""Seconds that the hub has to answer."""

REMEDY = "check the network and the proxy (HTTPS_PROXY, HF_ENDPOINT)"


def hub_answers() -> bool:
    """Return whether the hub may be asked, and answers, be it with an error."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE_S).close()
    except HTTPError:
        return True
    except (OSError, ValueError):  # a ValueError is an endpoint that is no URL
        return False
    return True


def why_not() -> str:
    """Return what keeps the hub from answering."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the hub is not asked"
    return f"the hub, {constants.ENDPOINT}, cannot be reached"


@contextmanager
def offline_where_the_hub_is_silent() -> Iterator[None]:
    """Use what is on this machine, within the block, if the hub does not answer.

    Its libraries would ask again and again, for a minute and a half, before they say so.
    """
    import datasets
    from huggingface_hub import constants

    answers = hub_answers()
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not answers:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before

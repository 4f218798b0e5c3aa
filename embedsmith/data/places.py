"""A folder on this machine or in object storage, whose files are whole or absent: what several machines write into.

s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, hf://datasets/OWNER/NAME/FOLDER, or a path. Object storage shows an object when
all of it has arrived. Keys, region and endpoint are those of the environment (AWS_PROFILE, AWS_ENDPOINT_URL and so on).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embedsmith.data.files import atomic_write, visible
from embedsmith.errors import InputError
from embedsmith.settings import holds_password

_KINDS = ("s3", "gs", "hf")


def is_stored(name: str) -> bool:
    """Return whether a name is that of a folder in object storage.

    >>> [is_stored(name) for name in ("s3://bucket/vectors", "runs/s3:a", "hf:owner/name")]
    [True, False, False]
    """
    return re.match(rf"({'|'.join(_KINDS)})://", name) is not None


class Place:
    """A folder by its name; it can be sent to another process."""

    def __init__(self, name: str) -> None:
        """Take note of a path, or a URL.

        Raises:
            InputError: a key stands in the URL.
        """
        if holds_password(name):
            raise InputError("a URL with a key in it", hint="put keys into the environment, such as AWS_PROFILE")
        self.name = name.rstrip("/") if is_stored(name) else os.path.abspath(name)

    def __str__(self) -> str:
        return self.name

    def names(self) -> set[str]:
        """Return the names of all files in it that are whole; none of a folder that is not there."""
        if not is_stored(self.name):
            return {path.name for path in visible(Path(self.name)) if path.is_file()}
        from pyarrow.fs import FileSelector, FileType

        system, path = self._opened()
        found = system.get_file_info(FileSelector(path, allow_not_found=True))
        return {one.base_name for one in found if one.type == FileType.File}

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears at once; one of the same name is replaced."""
        if not is_stored(self.name):
            with atomic_write(Path(self.name, name), "wb") as file:
                file.write(content)
            return
        system, path = self._opened()
        # All of it in one call: a stream that is closed after half of it would leave half an object.
        with system.open_output_stream(f"{path}/{name}") as stream:
            stream.write(content)

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        if not is_stored(self.name):
            return Path(self.name, name).read_bytes()
        system, path = self._opened()
        with system.open_input_stream(f"{path}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def _uri(self) -> str:
        """Return the URL as Arrow reads it: it does not look for an endpoint in the environment."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if not endpoint or not self.name.startswith("s3://") or "?" in self.name:
            return self.name
        scheme, _, host = endpoint.rstrip("/").rpartition("://")
        return f"{self.name}?scheme={scheme or 'https'}&endpoint_override={quote(host, safe='')}"

    def _opened(self) -> tuple[Any, str]:
        """Return the file system, and the folder's path in it.

        Raises:
            InputError: there is no such kind, or no bucket of that name.
        """
        import pyarrow as pa
        from pyarrow.fs import FileSystem

        try:
            return FileSystem.from_uri(self._uri())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{self.name}: {str(error).splitlines()[0]}", hint="write s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
            ) from None

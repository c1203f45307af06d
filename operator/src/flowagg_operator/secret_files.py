"""Secrets as files, for the clients of Kafka and Redis that read certificates from files alone."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flowagg_operator.pods import KAFKA_FILES
from flowagg_operator.spec import SecretRef

SecretData = Mapping[str, Mapping[str, bytes]]
"""Name of a Secret -> its keys and what they hold."""


class SecretFiles:
    """A private directory; close it to remove the files."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="flowagg-"))  # mode 0700

    def kafka(self, data: SecretData, ref: SecretRef) -> Path:
        """The file of librdkafka properties of a Secret, all of whose keys are files beside it.

        It may name those as the pods see them, in /etc/flowagg/kafka. Raises KeyError.
        """
        directory = self._directory / "kafka"
        directory.mkdir(exist_ok=True)
        for key, content in data[ref.name].items():
            (directory / key).write_bytes(content)
        path = directory / ref.key
        path.write_bytes(data[ref.name][ref.key].replace(f"{KAFKA_FILES}/".encode(), f"{directory}/".encode()))
        return path

    def file(self, data: SecretData, name: str, key: str) -> Path:
        """The file of one key. Raises KeyError."""
        directory = self._directory / f"secret-{name}"
        directory.mkdir(exist_ok=True)
        path = directory / key
        path.write_bytes(data[name][key])
        return path

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._directory, ignore_errors=True)

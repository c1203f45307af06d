"""The repair guide as tests see it: its sections and their blocks of commands, which are run as they stand there."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parents[2] / "docs" / "guides" / "repair.md"
_SECONDS: Final = 90

# Kafka's own tool is not in the jars that tests run Kafka from.
_KAFKA_TOPICS: Final = """\
import argparse
from confluent_kafka.admin import AdminClient, NewTopic

parser = argparse.ArgumentParser()
parser.add_argument("--create", action="store_true", required=True)
parser.add_argument("--config", action="append", default=[])
for name in ("--bootstrap-server", "--topic"):
    parser.add_argument(name, required=True)
for name in ("--partitions", "--replication-factor"):
    parser.add_argument(name, type=int, required=True)
given = parser.parse_args()
config = dict(setting.split("=") for setting in given.config)
new = NewTopic(given.topic, given.partitions, given.replication_factor, config=config)
admin = AdminClient({"bootstrap.servers": given.bootstrap_server})
admin.create_topics([new])[given.topic].result(30)
"""


def blocks(text: str) -> dict[str, list[str]]:
    """The blocks of commands of each section, in order, without their indentation."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        runs = re.findall(r"^( *)```sh\n(.*?)^\1```$", body, flags=re.M | re.S)
        found[title] = [textwrap.dedent(run) for _, run in runs]
    return found


@dataclass(frozen=True)
class Shell:
    """Runs the guide's blocks in a folder, with an environment of its own."""

    directory: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        tools = self.directory / "tools"
        tools.mkdir(parents=True, exist_ok=True)
        (self.directory / "kafka_topics.py").write_text(_KAFKA_TOPICS, encoding="utf-8")
        for name, command in (
            ("flowagg", "-m flowagg_cli"),
            ("kafka-topics.sh", str(self.directory / "kafka_topics.py")),
            ("python3", ""),
        ):
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n', encoding="utf-8")
            (tools / name).chmod(0o755)

    def run(self, section: str, number: int, **more: str) -> str:
        """The output of a section's block, from 1 on. more: further variables. Raises AssertionError where it fails."""
        block = blocks(GUIDE.read_text(encoding="utf-8"))[section][number - 1]
        environment = {**self.environment, **more}
        environment["PATH"] = f"{self.directory / 'tools'}:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env=environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{section}, block {number}:\n{block}\n{done.stdout}{done.stderr}"
        return done.stdout

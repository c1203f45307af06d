"""What Redis's scripts make of the sentinels' answers."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "charts" / "flow-aggregator" / "files" / "redis" / "sentinels.sh"
ADDRESS = "main-redis-1.main-redis.flows.svc\n6379\n"
MASTER = "name\nmain\nip\n10.0.0.1\nnum-slaves\n2\nconfig-epoch\n3\n"


@pytest.mark.parametrize(
    ("answer", "opinion"),
    [
        (ADDRESS + MASTER, "3 main-redis-1.main-redis.flows.svc 2\n"),
        (MASTER, ""),  # the first command met no connection, the second did
        ("\n" + MASTER, ""),  # it knows no master
        (ADDRESS, ""),
        ("ERR No such master with that name\n\nERR No such master with that name\n", ""),
        ("", ""),
    ],
)
def test_an_opinion_is_a_whole_answer(answer: str, opinion: str, tmp_path: Path) -> None:
    client = tmp_path / "redis-cli"
    client.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n", encoding="utf-8")
    client.chmod(0o755)
    (tmp_path / "answer").write_text(answer, encoding="utf-8")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NAME": "main-redis", "NAMESPACE": "flows"}
    done = subprocess.run(
        ["sh", "-c", f". {SCRIPT} 2> /dev/null; opinions"],
        env=environment | {"POD_NAME": "main-redis-0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == opinion * 3

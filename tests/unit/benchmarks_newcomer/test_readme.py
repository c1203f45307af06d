"""README's commands name what there is."""

import re
from pathlib import Path

from benchmarks.newcomer import commands

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_newcomers_commands_are_there_with_the_files_that_they_name() -> None:
    install, send = commands(README)
    assert install == "make run"
    files = re.findall(r"examples/\S+", send)
    assert len(files) == 2
    assert all((ROOT / file).is_file() for file in files)


def test_every_make_command_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", README, re.M))
    assert named
    assert named <= targets

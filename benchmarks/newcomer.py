"""The README's path for a newcomer, timed: install and run, send a VPC flow log, see the top talkers in the page.

    make bench-newcomer

A fresh clone of this checkout's last commit, with an empty HOME, runs the commands that README has, as they stand
there; a headless Chromium opens the page. What pip and uv fetch comes over the network.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
from flowagg_stack.ports import free_port

from benchmarks.browser import chromium, seconds_until_usable
from benchmarks.http.common import RESULTS
from benchmarks.peers.bars import Bar, summary

_REPOSITORY: Final = Path(__file__).parents[1]
_KEPT: Final = re.compile(r"PATH|LANG|.*_proxy|.*(CERT|CA_BUNDLE|SSL|CAINFO|INDEX).*", re.I)
"""Of the environment: what a machine has set up so that programs reach the network."""
_BAR_SECONDS: Final = 300.0
_DONE: Final = "Exact:"


def commands(readme: str) -> list[str]:
    """The commands of README that a newcomer runs: the first block, and the one that imports a log."""
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.M | re.S)
    imports = [block for block in blocks if "import vpc-flow-logs" in block]
    assert blocks, "README has no commands"
    assert len(imports) == 1, "README has one block that imports a VPC flow log"
    return [blocks[0].strip(), imports[0].strip()]


def _run(clone: Path, home: Path) -> dict[str, float]:
    """Seconds of each step."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    url = f"http://127.0.0.1:{port}"
    environment |= {"HOME": str(home), "PORT": str(port), "FLOWAGG_URL": url}
    install, send = commands((clone / "README.md").read_text(encoding="utf-8"))
    took = {}
    output = clone.parent / "output.txt"
    began = time.monotonic()
    with output.open("wb") as file:
        running = subprocess.Popen(
            ["sh", "-c", install], cwd=clone, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        while _DONE not in output.read_text(encoding="utf-8", errors="replace"):
            if running.poll() is not None or time.monotonic() - began > 2 * _BAR_SECONDS:
                raise SystemExit(f"{install}:\n{output.read_text(encoding='utf-8')}")
            time.sleep(0.1)
        took[install] = time.monotonic() - began
        began = time.monotonic()
        subprocess.run(["sh", "-c", send], cwd=clone, env=environment, check=True)
        took["flowagg import vpc-flow-logs"] = time.monotonic() - began
        with chromium() as browser:
            began = time.monotonic()
            RESULTS.mkdir(exist_ok=True)
            seconds_until_usable(browser, f"{url}/ui/", RESULTS / "newcomer.png")
            took["the top talkers in the page"] = time.monotonic() - began
        query = {"hour": "0-", "src_app": "checkout", "top": "1"}
        found = httpx.get(f"{url}/flows", params=query, timeout=30, trust_env=False).raise_for_status().json()
        assert found[0]["src_app"] == "checkout", "the log's flows are not there"
    finally:
        _end(running)
    return took


def _end(running: "subprocess.Popen[bytes]") -> None:
    """Ctrl-C, and where that does not do, an end."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if running.poll() is None:
            os.killpg(running.pid, number)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            continue
        return


def main() -> None:
    """Run it and print the table; the exit status says whether the bar holds."""
    with tempfile.TemporaryDirectory(prefix="flowagg-newcomer-") as directory:
        clone, home = Path(directory, "clone"), Path(directory, "home")
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(_REPOSITORY), str(clone)], check=True)
        took = _run(clone, home)
    for step, seconds in took.items():
        print(f"{step:40} {seconds:7.1f} s")
    bars = [Bar("README to the top talkers in the page, s", sum(took.values()), _BAR_SECONDS, at_least=False)]
    print(*(bar.text for bar in bars), sep="\n")
    print(summary(bars))
    sys.exit(0 if all(bar.holds for bar in bars) else 1)


if __name__ == "__main__":
    main()

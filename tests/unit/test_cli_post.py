"""`flowagg post` and `flowagg import`, with a system that answers as it is told."""

import argparse
import csv
import gzip
import io
import ipaddress
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import pytest
from flowagg.flow import Flow, decode_flow_lines
from flowagg_cli import vpc_flow_logs
from flowagg_cli.batches import BadRecord, batches, opened
from flowagg_cli.errors import WrongUsage

from tests.unit.cli_tools import Reply, run, serving

FIELDS: Final = Flow.__struct_fields__


@dataclass
class System:
    """Takes POSTs as a writer does: each key counts once. fails: statuses that come first."""

    url: str = ""
    kept: dict[str, bytes] = field(default_factory=dict)
    fails: list[int] = field(default_factory=list)
    posts: int = 0
    delay_seconds: float = 0.0
    authorizations: set[str | None] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flows(self) -> list[Flow]:
        return [flow for body in self.kept.values() for flow in decode_flow_lines(body)]

    def take(self, headers: Any, body: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
        time.sleep(self.delay_seconds)
        with self.lock:
            self.posts += 1
            self.authorizations.add(headers["Authorization"])
            if self.fails:
                status = self.fails.pop(0)
                if status == 0:  # taken, and the answer is lost
                    self.kept[headers["Idempotency-Key"]] = body
                    return 0, {}, {}
                return status, {"Retry-After": "0"}, {"status": status, "detail": f"failed with {status}.", "index": 1}
            if headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            known = self.kept.setdefault(headers["Idempotency-Key"], body)
            if known != body:
                return 422, {}, {"status": 422, "detail": "The key stands for another body."}
            return 200, {}, {"accepted": len(decode_flow_lines(body)), "position": "p"}


@pytest.fixture
def system() -> Iterator[System]:
    found = System()

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        status, headers, document = found.take(request.headers, body)
        return (status, headers, json.dumps(document).encode()) if status else None

    with serving(reply) as found.url:
        yield found


def flows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "src_app": f'app-{rng.randrange(50)} "x", é', "dest_app": f"d-{rng.randrange(9)}", "vpc_id": "v",
            "hour": rng.randrange(5), "bytes_tx": number, "bytes_rx": rng.randrange(2**53),
        }
        for number in range(count)
    ]  # fmt: skip


def written(path: Path, made: list[dict[str, Any]], form: str) -> Path:
    if form == "json":
        text = json.dumps(made)
    elif form == "ndjson":
        text = "\n".join(json.dumps(one) for one in made)
    else:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ["note", *reversed(FIELDS)])
        writer.writeheader()
        writer.writerows({"note": "n", **one} for one in made)
        text = out.getvalue()
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def counted(found: list[Flow] | list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    if found and isinstance(found[0], dict):
        return Counter(tuple(one[name] for name in FIELDS) for one in found)
    return Counter(tuple(getattr(one, name) for name in FIELDS) for one in found)


@pytest.mark.parametrize("name", ["f.ndjson", "f.jsonl.gz", "f.json", "f.json.gz", "f.csv", "f.csv.gz"])
@pytest.mark.parametrize("options", [[], ["--gzip", "--batch", "7", "--connections", "1"]], ids=["usual", "gzip"])
def test_all_formats_arrive(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, options: list[str]
) -> None:
    made = flows(230)
    form = next(one for one in ("ndjson", "jsonl", "json", "csv") if f".{one}" in name).replace("jsonl", "ndjson")
    path = written(tmp_path / name, made, form)
    code, out, error = run(capsys, "post", str(path), "--url", system.url, *options)
    assert (code, error) == (0, "")
    assert out.startswith("230 flows acknowledged")
    assert counted(system.flows()) == counted(made)
    assert sorted(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_standard_input_and_a_token(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("secret\n")
    raw = io.BytesIO(b"\n".join(json.dumps(one).encode() for one in flows(5)))
    monkeypatch.setattr("sys.stdin", argparse.Namespace(buffer=raw))
    monkeypatch.setenv("FLOWAGG_URL", system.url)
    code, out, _ = run(capsys, "post", "--token-file", str(tmp_path / "token"), "--json")
    assert code == 0
    assert json.loads(out)["flows"] == 5
    assert system.authorizations == {"Bearer secret"}


def test_what_fails_in_passing_is_sent_again_under_its_key(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = flows(100)
    system.fails = [503, 0, 429, 502, 0]
    path = written(tmp_path / "f.ndjson", made, "ndjson")
    assert run(capsys, "post", str(path), "--url", system.url, "--batch", "10")[0] == 0
    assert system.posts == 15
    assert counted(system.flows()) == counted(made)


def test_it_gives_up_in_the_end_and_the_same_command_goes_on(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = flows(100)
    path = written(tmp_path / "f.ndjson", made, "ndjson")
    command = ["post", str(path), "--url", system.url, "--batch", "10", "--connections", "2"]
    system.fails = [200 + 303] * 1000
    code, _, error = run(capsys, *command, "--patience", "0.1")
    assert code == 1
    assert "failed with 503. 0 flows are acknowledged. The same command goes on from there." in error
    system.fails = []
    assert run(capsys, *command)[0] == 0
    assert counted(system.flows()) == counted(made)


def test_a_system_that_is_away_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = written(tmp_path / "f.ndjson", flows(1), "ndjson")
    code, _, error = run(capsys, "post", str(path), "--url", "http://127.0.0.1:1", "--patience", "0.1")
    assert code == 1
    assert "http://127.0.0.1:1 cannot be reached" in error


def test_each_flow_counts_once_though_it_is_killed_again_and_again(system: System, tmp_path: Path) -> None:
    rng = random.Random(1)
    made = flows(3000)
    path = written(tmp_path / "f.ndjson.gz", made, "ndjson")
    system.delay_seconds = 0.1
    command = [sys.executable, "-m", "flowagg_cli", "post", str(path), "--url", system.url, "--batch", "20"]
    for _ in range(6):  # until half a second after it has begun to send
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = system.posts
        while process.poll() is None and system.posts == before:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.4)
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))  # SIGINT may be ignored from outside
        assert process.wait() != 0, "it was killed on its way"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert counted(system.flows()) == counted(made)
    assert sorted(tmp_path.iterdir()) == [path]


BAD: Final = {"src_app": "a", "dest_app": "b", "vpc_id": "c", "hour": 1, "bytes_tx": -1, "bytes_rx": 2}


def test_a_bad_record_is_named_with_its_line_and_can_be_mended(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = flows(100)
    path = tmp_path / "f.ndjson"
    lines = [json.dumps(one) for one in made]
    path.write_text("\n".join([*lines[:57], json.dumps(BAD), *lines[57:]]))
    command = ["post", str(path), "--url", system.url, "--batch", "10"]
    code, _, error = run(capsys, *command)
    assert code == 1
    assert f"{path}, line 58: bytes_tx: " in error
    assert counted(system.flows()) == counted(made[:50]), "all before its batch, and nothing behind"
    path.write_text("\n".join(lines))
    assert run(capsys, *command)[0] == 0
    assert counted(system.flows()) == counted(made)


def test_check_sends_nothing(system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = written(tmp_path / "f.csv", flows(10), "csv")
    code, out, _ = run(capsys, "post", str(path), "--url", system.url, "--check")
    assert (code, system.posts) == (0, 0)
    assert out.startswith("10 flows are good")
    path.write_text(path.read_text() + "n,1,2,x,v,d,s\r\n")
    code, _, error = run(capsys, "post", str(path), "--url", system.url, "--check")
    assert code == 1
    assert "line 12: hour: 'x' is no whole number" in error


def test_a_file_that_was_changed_where_it_was_posted_is_refused(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path / "f.ndjson", flows(100), "ndjson")
    command = ["post", str(path), "--url", system.url, "--batch", "10", "--connections", "1", "--patience", "0.1"]
    system.fails = []
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n{}")
    assert run(capsys, *command)[0] == 1
    assert len(system.kept) == 10
    path.write_bytes(b'{"x":1}' + whole)
    code, _, error = run(capsys, *command)
    assert code == 3
    assert "has changed in a part that was posted" in error
    code, _, error = run(capsys, *[*command[:3], system.url.replace("127.0.0.1", "localhost"), *command[4:]])
    assert code == 3
    assert "in another way" in error


def test_a_file_that_has_grown_behind_its_last_batch_is_refused(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Else that batch, which may have been counted though the answer was lost, would be cut longer under its key."""
    path = written(tmp_path / "f.ndjson", flows(25), "ndjson")
    state = tmp_path / "state"
    command = ["post", str(path), "--url", system.url, "--state", str(state), "--patience", "0.1"]
    system.fails = [0, *[503] * 1000]
    assert run(capsys, *command)[0] == 1
    assert len(system.kept) == 1, "Kafka has it, and nobody knows"
    system.fails = []
    raw = path.read_bytes()
    path.write_bytes(raw + b"\n" + json.dumps(flows(1)[0]).encode())
    code, _, error = run(capsys, *command)
    assert code == 3
    assert "has changed" in error
    path.write_bytes(raw)
    assert run(capsys, *command)[0] == 0
    assert not state.exists()
    assert counted(system.flows()) == counted(flows(25))


def test_files_that_are_through_count_once_though_a_later_one_breaks_off(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = written(tmp_path / "a.ndjson", flows(30), "ndjson")
    second = tmp_path / "b.ndjson"
    good = json.dumps(flows(1, seed=9)[0])
    second.write_text(good + "\n{}")
    command = ["post", str(first), str(second), "--url", system.url]
    assert run(capsys, *command)[0] == 1
    second.write_text(good)
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert out.startswith("31 flows acknowledged")
    assert counted(system.flows()) == counted([*flows(30), *flows(1, seed=9)])
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_wrong_command_line_leaves_nothing_behind(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text(LOG)
    command = ["import", "vpc-flow-logs", str(tmp_path / "log"), "--url", system.url]
    assert run(capsys, *command)[0] == 2
    assert run(capsys, *command, "--vpc-id", "v")[0] == 0


def test_another_mapping_is_another_way(system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    (tmp_path / "apps.csv").write_text(APPS)
    command = ["import", "vpc-flow-logs", str(tmp_path / "log"), "--apps", str(tmp_path / "apps.csv"), "--vpc-id", "v"]
    command += ["--url", system.url, "--patience", "0.1"]
    system.fails = [503] * 1000
    assert run(capsys, *command)[0] == 1
    (tmp_path / "apps.csv").write_text(APPS.replace("payments", "paid"))
    system.fails = []
    code, _, error = run(capsys, *command)
    assert code == 3
    assert "in another way" in error


def test_names_of_csv_keep_their_blanks(system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("src_app,hour,bytes_tx,bytes_rx,vpc_id,dest_app\r\n foo,1,2,3,v,bar \r\n\r\n")
    assert run(capsys, "post", str(tmp_path / "f.csv"), "--url", system.url)[0] == 0
    assert counted(system.flows()) == Counter([(" foo", "bar ", "v", 1, 2, 3)])


def test_text_that_is_not_utf8_is_told_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = json.dumps(flows(1)[0]).encode()
    (tmp_path / "f.ndjson").write_bytes(good + b"\n\n" + good[:-1] + b', "note": "\xff"}\n')
    code, _, error = run(capsys, "post", str(tmp_path / "f.ndjson"), "--check")
    assert code == 1
    assert "line 3" in error


def test_a_damaged_file_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(b"\n".join(json.dumps(one).encode() for one in flows(500))))
    for cut in (bytes(raw[:900]), bytes(raw[:600]) + b"\0" * 200 + bytes(raw[800:])):
        (tmp_path / "f.ndjson.gz").write_bytes(cut)
        code, _, error = run(capsys, "post", str(tmp_path / "f.ndjson.gz"), "--check")
        assert code == 1, error
        assert "Traceback" not in error


def test_what_the_system_refuses_is_told_with_the_line(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "f.ndjson"
    path.write_text("\n \n".join(json.dumps(one) for one in flows(10)))
    system.fails = [403]
    code, _, error = run(capsys, "post", str(path), "--url", system.url)
    assert code == 1
    assert f"{path}, line 3: failed with 403." in error  # its second flow; every other line is blank


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "ftp://x"],
        ["--batch", "0"],
        ["--batch", "100001"],
        ["--connections", "65"],
        ["--format", "xml"],
        ["none.ndjson"],
        ["f.txt"],
        ["-", "-"],
        ["--state", "s", "--no-resume"],
        ["a.csv", "b.csv", "--state", "s"],
        ["--token-file", "none"],
        ["-", "--state", "s"],
        ["f.txt", "f.txt", "--format", "ndjson"],
    ],
)
def test_a_wrong_command_line_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.txt").write_text("")
    code, _, error = run(capsys, "post", *arguments)
    assert code == 2, error
    assert "Traceback" not in error


def test_a_csv_file_needs_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("src_app,dest_app\n")
    with opened(str(path)) as file, pytest.raises(WrongUsage, match="it lacks vpc_id, hour, bytes_tx, bytes_rx"):
        list(batches("f.csv", file, "csv", 10))


# VPC flow logs -----------------------------------------------------------------------------------

LOG: Final = """\
version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status
2 123456789010 eni-1 10.0.1.5 10.0.2.6 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK
2 123456789010 eni-1 10.0.2.6 10.0.1.5 22 20641 6 20 1000 1418530010 1418530070 ACCEPT OK
2 123456789010 eni-1 203.0.113.12 10.0.1.5 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK
2 123456789010 eni-1 2001:db8::5 2001:db8:1::9 1 2 6 1 77 1418533600 1418533660 ACCEPT OK
2 123456789010 eni-1 - - - - - - - 1431280876 1431280934 - NODATA
"""
APPS: Final = "# network,application\n10.0.0.0/16,inside\n10.0.2.0/24,payments\n2001:db8::/48,six\n"
HOUR: Final = 1418530010 // 3600


def test_a_vpc_flow_log_becomes_flows(system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log.gz").write_bytes(gzip.compress(LOG.encode()))
    (tmp_path / "apps.csv").write_text(APPS)
    command = ["import", "vpc-flow-logs", str(tmp_path / "log.gz"), "--apps", str(tmp_path / "apps.csv")]
    code, out, error = run(capsys, *command, "--vpc-id", "vpc-9", "--url", system.url)
    assert (code, error) == (0, "")
    assert out.startswith("3 flows acknowledged")
    assert counted(system.flows()) == Counter(
        [
            ("inside", "payments", "vpc-9", HOUR, 4249, 0),
            ("payments", "inside", "vpc-9", HOUR, 1000, 0),
            ("six", "2001:db8:1::9", "vpc-9", HOUR + 1, 77, 0),
        ]
    )


@pytest.mark.parametrize(
    ("options", "count"),
    [(["--action", "all"], 4), (["--action", "reject"], 1), ([], 3)],
)
def test_a_log_without_its_first_line_is_of_the_default_format(
    system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], count: int
) -> None:
    (tmp_path / "log").write_text(LOG.partition("\n")[2])
    code, _, _ = run(
        capsys, "import", "vpc-flow-logs", str(tmp_path / "log"), "--vpc-id", "v", "--unmapped", "else",
        "--url", system.url, *options,
    )  # fmt: skip
    assert code == 0
    assert len(system.flows()) == count
    assert {flow.src_app for flow in system.flows()} <= {"10.0.1.5", "10.0.2.6", "203.0.113.12", "2001:db8::5", "else"}


def test_other_fields_in_another_order(system: System, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "bytes start dstaddr srcaddr vpc-id flow-direction\n5 7200 1.1.1.1 2.2.2.2 vpc-a egress\n"
        "6 7200 1.1.1.1 2.2.2.2 vpc-b ingress\n"
    )
    code, _, _ = run(
        capsys, "import", "vpc-flow-logs", str(tmp_path / "log"), "--direction", "egress", "--url", system.url
    )
    assert code == 0
    assert counted(system.flows()) == Counter([("2.2.2.2", "1.1.1.1", "vpc-a", 2, 5, 0)])


@pytest.mark.parametrize(
    ("log", "apps", "options", "code", "text"),
    [
        (LOG, "", [], 2, "no field vpc-id"),
        (LOG, "", ["--vpc-id", "v", "--direction", "egress"], 2, "no field flow-direction"),
        ("a b c\n", "", ["--vpc-id", "v"], 2, "must name the fields srcaddr"),
        (LOG + "2 1 eni-1 10.0.1.5\n", "", ["--vpc-id", "v"], 1, "line 7: 4 fields, where the log has 14"),
        (LOG.replace("4249", "x"), "", ["--vpc-id", "v"], 1, "line 2: bytes: 'x' is no whole number"),
        (LOG.replace("10.0.1.5", "10.0.1.555"), "", ["--vpc-id", "v"], 1, "'10.0.1.555' is no address"),
        (LOG, "10.0.0.1/16,x\n", ["--vpc-id", "v"], 2, "line 1: 10.0.0.1/16 has host bits set"),
        (LOG, "10.0.0.0/16\n", ["--vpc-id", "v"], 2, "line 1: write network,application"),
    ],
)
def test_a_bad_log_or_mapping_is_told(
    system: System,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    log: str,
    apps: str,
    options: list[str],
    code: int,
    text: str,
) -> None:
    (tmp_path / "log").write_text(log)
    (tmp_path / "apps.csv").write_text(apps)
    command = [
        "import",
        "vpc-flow-logs",
        str(tmp_path / "log"),
        "--apps",
        str(tmp_path / "apps.csv"),
        "--url",
        system.url,
    ]
    found, _, error = run(capsys, *command, *options)
    assert found == code, error
    assert text in error


def test_the_longest_network_counts() -> None:
    networks = {"0.0.0.0/0": "world", "10.0.0.0/8": "ten", "10.1.2.3/32": "one"}
    of = vpc_flow_logs._app_of({ipaddress.ip_network(text): name for text, name in networks.items()}, None)
    assert [of(text) for text in ("9.9.9.9", "10.9.9.9", "10.1.2.3", "::1")] == ["world", "ten", "one", "::1"]


def test_a_bad_record_past_others_is_found_when_it_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "f.ndjson"
    path.write_text("\n".join(json.dumps(one) for one in [*flows(5), BAD]))
    with opened(str(path)) as file:
        found = batches("f.ndjson", file, "ndjson", 3)
        assert next(found).flows == 3
        with pytest.raises(BadRecord, match="line 6"):
            next(found)

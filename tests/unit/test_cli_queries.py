"""`flowagg get`, `top`, `watch`, `hours` and `lag`, with a reader that answers as it is told."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

import pytest
from flowagg_cli.queries import STALE, short

from tests.unit.cli_tools import Reply, run, serving

HEADER = "src_app,dest_app,vpc_id,hour,bytes_tx,bytes_rx\r\n"


@dataclass
class Reader:
    """answers: one after the other, the last again and again: status, headers, body."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)

    def answer(self, body: str | bytes, status: int = 200, **headers: str) -> None:
        raw = body.encode() if isinstance(body, str) else body
        fields = {"Flowagg-Fresh": "true", "Flowagg-Lag-Records": "0"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, fields, raw))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    found = Reader()

    def reply(request: BaseHTTPRequestHandler, _: bytes) -> Reply:
        parts = urlsplit(request.path)
        found.asked.append((parts.path, parse_qsl(parts.query)))
        found.tags.append(request.headers["If-None-Match"])
        return found.answers.pop(0) if len(found.answers) > 1 else found.answers[0]

    with serving(reply) as found.url:
        monkeypatch.setenv("FLOWAGG_URL", found.url)
        yield found


def test_a_table_has_columns_and_says_who_the_others_are(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer(
        'src_app,dest_app,bytes_tx,bytes_rx\r\nweb,"a,b",12345,0\r\nlong-name,x,999,7\r\n'
        ",,5,1267650600228229401496703205376\r\n"
    )
    code, out, error = run(capfd, "top", "--hour", "3", "--src-app", "w*", "--src-app", "long-*", "-n", "2")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "src_app       dest_app  bytes_tx    bytes_rx",
        "web           a,b        12.3 kB         0 B",
        "long-name     x            999 B         7 B",
        "(all others)                 5 B  1267651 YB",
    ]
    path, query = reader.asked[0]
    assert path == "/flows"
    assert query == [
        ("hour", "3"), ("consistency", "fresh"), ("src_app", "w*"), ("src_app", "long-*"),
        ("group_by", "src_app,dest_app"), ("order_by", "bytes"), ("top", "2"), ("format", "csv"),
    ]  # fmt: skip


def test_exact_numbers(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer(HEADER + f"a,b,c,7,{2**70},0\r\n")
    _, out, _ = run(capfd, "get", "--exact")
    assert f"{2**70:,}" in out


def test_pages_are_followed(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        reader.answer('{"src_app":"a"}\n', Link='<?hour=0-&limit=10000&cursor=abc_-1>; rel="next"')
        reader.answer('{"src_app":"b"}\n{"src_app":"c"}\n')
    code, out, _ = run(capfd, "get", "--format", "json")
    assert code == 0
    assert json.loads(out) == [{"src_app": "a"}, {"src_app": "b"}, {"src_app": "c"}]
    assert dict(reader.asked[1][1])["cursor"] == "abc_-1"
    assert "cursor" not in dict(reader.asked[0][1])
    _, out, _ = run(capfd, "get", "--format", "ndjson")
    assert out == '{"src_app":"a"}\n{"src_app":"b"}\n{"src_app":"c"}\n'


def test_csv_has_its_names_once(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer("src_app\r\na\r\n", Link='<?cursor=x>; rel="next"')
    reader.answer("src_app\r\nb\r\n")
    assert run(capfd, "get", "--format", "csv")[1].replace("\r", "") == "src_app\na\nb\n"


def test_nothing_is_said_to_be_nothing(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer(HEADER)
    assert run(capfd, "get")[1].splitlines()[1] == "(nothing)"
    reader.answers.clear()
    reader.answer(b"")
    assert run(capfd, "get", "--format", "json")[1] == "[]\n"


def test_what_an_answer_lacks_is_told_beside_it(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer(
        HEADER, Flowagg_Fresh="false", Flowagg_Lag_Records="12", Flowagg_Incomplete="true", Flowagg_Expired="true"
    )
    code, _, error = run(capfd, "get")
    assert code == 0
    assert error.splitlines() == [
        "flowagg: the totals may lack what was acknowledged last: 12 records",
        "flowagg: the view is incomplete: the log had lost records before they were counted",
        "flowagg: some of these hours have expired",
    ]


def test_a_problem_is_told_in_its_own_words(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer(json.dumps({"status": 401, "detail": "A token is needed."}), 401)
    code, _, error = run(capfd, "hours")
    assert code == 1
    assert error == "flowagg: A token is needed. Give a token by --token-file or FLOWAGG_TOKEN_FILE.\n"
    reader.answers.clear()
    reader.answer("<html>", 404)
    assert "is this its address?" in run(capfd, "top")[2]


def test_watch_reads_what_has_changed_alone(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer("src_app,bytes_tx,bytes_rx\r\na,1,2\r\n", ETag='W/"x"')
    reader.answer("", 304, Flowagg_Fresh="false")
    code, out, _ = run(capfd, "watch", "--every", "0", "--count", "2", "--by", "src_app")
    assert code == 0
    assert reader.tags == [None, 'W/"x"']
    assert out.count("a ") >= 2
    assert "some records are not counted yet" in out


def test_hours(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer("hour,flow_keys\r\n1,20000\r\n12,3\r\n")
    assert run(capfd, "hours", "--view", "v")[1].splitlines() == [
        "hour  flow_keys",
        "   1      20000",
        "  12          3",
    ]
    assert reader.asked[0] == ("/hours", [("format", "csv"), ("view", "v")])


@pytest.mark.parametrize(
    ("lag", "code", "text"),
    [("0", 0, "0 records behind"), ("1234", STALE, "1,234 records behind."), ("unknown", STALE, "It is not known")],
)
def test_lag(reader: Reader, capfd: pytest.CaptureFixture[str], lag: str, code: int, text: str) -> None:
    reader.answer("hour\r\n", Flowagg_Lag_Records=lag)
    found, out, _ = run(capfd, "lag")
    assert found == code
    assert text in out


def test_lag_waits(reader: Reader, capfd: pytest.CaptureFixture[str]) -> None:
    reader.answer("hour\r\n", Flowagg_Lag_Records="5")
    reader.answer("hour\r\n", Flowagg_Lag_Records="0")
    assert run(capfd, "lag", "--wait", "20")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["top", "-n", "0"],
        ["top", "--measure", "x"],
        ["watch", "--every", "x"],
        ["get", "--format", "json", "--exact"],
        ["lag", "--wait", "nan"],
    ],
)
def test_a_wrong_command_line_is_told(reader: Reader, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(capfd, *arguments)[0] == 2
    assert reader.asked == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_999, "1.0 MB"),
        (10**26, "100 YB"),
    ],
)
def test_bytes_are_short(count: int, text: str) -> None:
    assert short(count) == text


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(capfd: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = run(capfd, "completion", shell)
    assert code == 0
    assert "vpc-flow-logs" in out

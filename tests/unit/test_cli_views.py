"""The commands on views: what is refused and why, names of files, the table."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import obstore.store
import pytest
from confluent_kafka import KafkaError, KafkaException
from flowagg.kafka import KafkaUnavailable, Topic
from flowagg.settings import KafkaSettings
from flowagg.view import Meta
from flowagg_cli import listing
from flowagg_cli.__main__ import main
from flowagg_cli.backup import newest
from flowagg_cli.dead_letter_settings import DeadLetterSettings
from flowagg_cli.errors import Busy, Refused, WrongUsage
from flowagg_cli.kafka_look import Bounds, KafkaLook, check_no_members, fit
from flowagg_cli.places import Folder, Place, Spot, Store, export_name, exports_of, spot
from flowagg_cli.redis_target import Import, Standing, judge
from flowagg_cli.settings import OF_CONSUMERS, ViewSettings, read_settings
from flowagg_consumer.settings import ConsumerSettings


def meta(position: int = 5, topic_id: str = "id", incarnation: str = "new") -> Meta:
    return Meta(position, topic_id, 0, 0, incomplete=False, incarnation=incarnation)


DONE = (meta(), Import("new", "file", 5))
UNDONE = (None, Import("new", "file", None))
BEGUN = (meta(), None)
NOTHING = (None, None)


@pytest.mark.parametrize(
    ("found", "standing"),
    [
        ({}, Standing.ABSENT),
        ({0: NOTHING, 1: NOTHING}, Standing.ABSENT),
        ({0: BEGUN}, Standing.EXISTS),
        ({0: BEGUN, 1: NOTHING}, Standing.EXISTS),
        ({0: UNDONE, 1: UNDONE}, Standing.LEFT),
        ({0: UNDONE, 1: NOTHING}, Standing.LEFT),
        ({0: DONE, 1: UNDONE}, Standing.LEFT),
        ({0: DONE, 1: DONE}, Standing.EXISTS),
        ({0: DONE, 1: BEGUN}, Standing.EXISTS),
        ({0: UNDONE, 1: BEGUN}, Standing.EXISTS),
        # A consumer has taken the part that was there on.
        ({0: (meta(6), Import("new", "file", 5)), 1: UNDONE}, Standing.EXISTS),
        ({0: (meta(5, incarnation="other"), Import("new", "file", 5)), 1: UNDONE}, Standing.EXISTS),
    ],
)
def test_what_stands_under_a_name_is_told_apart(
    found: dict[int, tuple[Meta | None, Import | None]], standing: Standing
) -> None:
    assert judge(found) is standing


TOPIC = Topic("id", frozenset({0, 1}))


@pytest.mark.parametrize(
    ("metas", "bounds", "refusals", "losses", "tail"),
    [
        ({0: meta(5), 1: meta(7)}, {0: Bounds(0, 9), 1: Bounds(7, 7)}, 0, 0, {0: 4, 1: 0}),
        ({0: meta(5), 1: meta(7)}, {0: Bounds(6, 9), 1: Bounds(0, 7)}, 0, 1, {0: 3, 1: 0}),
        ({0: meta(5), 1: meta(7)}, {0: Bounds(0, 4), 1: Bounds(0, 7)}, 1, 0, {1: 0}),
        ({0: meta(5)}, {0: Bounds(0, 5), 1: Bounds(0, 7)}, 0, 0, {0: 0, 1: 7}),
        ({0: meta(5)}, {0: Bounds(0, 5), 1: Bounds(3, 7)}, 0, 1, {0: 0, 1: 4}),
        ({0: meta(5), 2: meta(5)}, {0: Bounds(0, 5), 1: Bounds(0, 0)}, 1, 0, {0: 0, 1: 0}),
        ({0: meta(5, "other")}, {0: Bounds(0, 5), 1: Bounds(0, 0)}, 1, 0, {}),
    ],
    ids=["exact", "retention passed", "beyond the log", "grown", "grown and passed", "shrunk", "another topic"],
)
def test_positions_are_judged_as_a_consumer_would(
    metas: dict[int, Meta], bounds: dict[int, Bounds], refusals: int, losses: int, tail: dict[int, int]
) -> None:
    found = fit(metas, "flows", TOPIC, bounds)
    assert (len(found.refusals), len(found.losses), found.tail) == (refusals, losses, tail)


@pytest.mark.parametrize("state", ["STABLE", "ASSIGNING", "RECONCILING", "PREPARING_REBALANCING", "UNKNOWN"])
def test_members_of_the_group_refuse(state: str) -> None:
    with pytest.raises(Busy, match="flowagg-default"):
        check_no_members(state, "default", "the import")


@pytest.mark.parametrize("state", ["EMPTY", "DEAD"])
def test_a_group_without_members_does_not(state: str) -> None:
    check_no_members(state, "default", "the import")


def test_the_settings_that_are_left_aside_are_those_of_consumers_alone() -> None:
    of_others = ConsumerSettings.model_fields.keys() | DeadLetterSettings.model_fields.keys() | {"url", "token_file"}
    assert set(OF_CONSUMERS) == of_others - ViewSettings.model_fields.keys()


def test_a_consumers_environment_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VIEW": "b", "RETENTION_HOURS": "24", "BATCH_RECORDS": "9", "PORT": "8080"}.items():
        monkeypatch.setenv(f"FLOWAGG_{name}", value)
    assert read_settings(ViewSettings).view == "b"


def test_names_carry_the_view_and_the_time_in_utc() -> None:
    at = datetime(2026, 11, 27, 1, 2, 3, 4567, tzinfo=timezone(timedelta(hours=2)))
    assert export_name("a-b", at) == "a-b-20261126T230203.004Z.flowagg.zst"


def test_exports_of_a_view_are_those_of_no_other() -> None:
    names = [export_name(view, datetime(2026, 11, day, tzinfo=UTC)) for view in ("a", "a-b", "b") for day in (3, 1, 2)]
    found = exports_of("a", [*names, "a-20261101T000000.000Z.flowagg.zst.part", "notes.txt"])
    assert found == [f"a-2026110{day}T000000.000Z.flowagg.zst" for day in (1, 2, 3)]


@pytest.fixture(params=["folder", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Folder(tmp_path / "new") if request.param == "folder" else Store(obstore.store.MemoryStore())


def test_a_place_keeps_what_was_written_to_its_end(place: Place) -> None:
    data = bytes(range(256)) * 80_000  # more than two parts
    with place.writing("a") as file:
        for start in range(0, len(data), 300_000):
            file.write(data[start : start + 300_000])
    with place.writing("b") as file:
        file.write(b"b")
    read = b""
    with place.reading("a") as file:
        while some := file.read(1_000_000):
            read += some
    assert read == data
    assert sorted(place.names()) == ["a", "b"]
    place.remove("a")
    assert place.names() == ["b"]


def test_a_place_keeps_nothing_of_what_broke_off(place: Place) -> None:
    with place.writing("before") as file:
        file.write(b"kept")

    def break_off() -> None:
        with place.writing("before") as file:
            file.write(b"x" * 20_000_000)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert place.names() == ["before"]
    with place.reading("before") as file:
        assert bytes(file.read(10)) == b"kept"


def test_what_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(Refused), place.reading("a") as file:
        file.read(1)


def test_the_newest_export_of_a_folder_is_found(place: Place) -> None:
    for day in (1, 3, 2):
        with place.writing(export_name("a", datetime(2026, 11, day, tzinfo=UTC))) as file:
            file.write(b"a")
    assert newest(Spot(place, "", str), "a").name == "a-20261103T000000.000Z.flowagg.zst"
    with pytest.raises(Refused, match="no export"):
        newest(Spot(place, "", str), "b")


@pytest.mark.parametrize(
    ("given", "name", "text"),
    [
        ("exports/", "", "exports/x"),
        ("exports/file", "file", "exports/x"),
        ("file", "file", "x"),
        ("s3://bucket", "", "s3://bucket/x"),
        ("s3://bucket/", "", "s3://bucket/x"),
        ("s3://bucket/deep/er/", "", "s3://bucket/deep/er/x"),
        ("s3://bucket/deep/file", "file", "s3://bucket/deep/x"),
    ],
)
def test_paths_and_urls_name_a_place_and_maybe_a_file(given: str, name: str, text: str) -> None:
    found = spot(given, None)
    assert (found.name, found.text("x")) == (name, text)


@pytest.mark.parametrize(("given", "endpoint"), [("ftp://host/", None), ("gs://bucket/", "http://s3")])
def test_what_names_no_place_is_refused(given: str, endpoint: str | None) -> None:
    with pytest.raises(WrongUsage):
        spot(given, endpoint)


LISTED = listing.Listed("default", {0: (meta(5), None), 1: (meta(7), None)}, {0: 3, 1: 2})


def test_a_listed_view_tells_its_lag_where_kafka_answers() -> None:
    ends = listing.Ends("id", {0: Bounds(0, 9), 1: Bounds(0, 7)})
    row = listing.rows([LISTED], ends)[0]
    assert (row["position"], row["lag"], row["hours"], row["state"]) == (12, 4, 3, "ready")
    assert "default  2           12       3      4    no" in listing.table([row])
    for away in (listing.Ends(None, {}, "away"), listing.Ends("other", ends.bounds)):
        assert listing.rows([LISTED], away)[0]["lag"] is None


def test_a_view_whose_import_did_not_end_is_listed_as_such() -> None:
    left = listing.Listed("default", {0: DONE, 1: UNDONE}, {0: 3})
    assert listing.rows([left], listing.Ends(None, {}))[0]["state"] == "importing"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["views", "remove", "default"], 3, "--yes"),
        (["views", "remove", "Default", "--yes"], 2, "no name of a view"),
        (["views", "clone", "a", "a"], 2, "itself"),
        (["views", "export", "a", "--to", "file", "--keep", "3"], 2, "--keep needs a folder"),
        (["views", "export", "a", "--to", "exports/", "--keep", "0"], 2, "from 1 on"),
        (["views", "import", "--from", "exports/"], 2, "--of"),
        (["views", "import", "--from", "ftp://host/a"], 2, "s3://"),
        (["views"], 2, "COMMAND"),
    ],
)
def test_a_wrong_command_line_ends_with_its_code_and_says_why(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == code
    assert text in capsys.readouterr().err


def test_wrong_settings_end_with_their_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWAGG_REDIS_SENTINELZ", "a:1")
    with pytest.raises(SystemExit) as end:
        main(["views", "list"])
    assert end.value.code == 2
    assert "FLOWAGG_REDIS_SENTINELS?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("states", "broken", "said"),
    [
        ({}, False, "EMPTY"),
        ({"flowagg-v": "STABLE"}, True, "STABLE"),
        ({"flowagg-v": "EMPTY", "flowagg-v.2": "STABLE"}, False, "STABLE"),
        ({"flowagg-v": "EMPTY"}, False, "EMPTY"),
        ({"flowagg-v.2": "EMPTY"}, True, None),
        ({}, True, None),
    ],
)
def test_members_are_looked_for_in_every_group_of_the_view(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, str], broken: bool, said: str | None
) -> None:
    look = KafkaLook(KafkaSettings(kafka_bootstrap_servers="127.0.0.1:1"))
    error = KafkaException(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE)) if broken else None
    monkeypatch.setattr(look, "_groups", lambda _: (states, error))
    try:
        if said is None:
            with pytest.raises(KafkaUnavailable):
                look.group_state("v")
        else:
            assert look.group_state("v") == said
    finally:
        look.close()

"""The dashboards: structure, layout, and queries on series that there are."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from flowagg_dashboards.boards import BOARDS
from flowagg_dashboards.grafana import rendered
from flowagg_dashboards.model import Board

from tests.chart.monitoring.files import (
    DASHBOARDS,
    TARGET_LABELS,
    dashboard,
    grouped,
    known_metrics,
    promtool,
    selectors,
)
from tests.chart.monitoring.scrape import panels

_COLUMNS = 24
_KINDS = {"row", "stat", "timeseries", "state-timeline"}
_UNITS = {"none", "short", "s", "bytes", "cps", "ops", "reqps", "percentunit"}

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_there_is_a_dashboard_for_each_area() -> None:
    assert [path.stem for path in DASHBOARDS] == [
        "consumers",
        "dependencies",
        "ingest",
        "operator",
        "overview",
        "reads",
    ]


def test_the_dashboards_are_those_of_the_code_that_writes_them() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS} == {
        f"{board.name}.json": rendered(board) for board in BOARDS
    }


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_panel_has_no_more_queries_than_letters_and_widths_fill_lines(board: Board) -> None:
    for row in board.rows:
        assert sum(panel.width for panel in row.panels) % _COLUMNS == 0, row.title
        assert all(1 <= len(panel.queries) <= 8 for panel in row.panels)


@each_dashboard
def test_a_dashboard_has_what_grafana_asks_for(path: Path) -> None:
    board = dashboard(path)
    assert board["schemaVersion"] >= 36
    assert "id" not in board, "Grafana gives ids of its own; the uid is what stays"
    assert board["uid"]
    assert board["title"].startswith("FlowAggregator / ")
    assert [note["titleFormat"] for note in board["annotations"]["list"]] == ["{{alertname}}"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert {panel["type"] for panel in board["panels"]} <= _KINDS
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))


@each_dashboard
def test_every_panel_has_a_query_a_unit_a_description_and_the_data_source_of_the_variable(path: Path) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in dashboard(path)["panels"]:
        if panel["type"] == "row":
            assert not panel["panels"], "an open row's panels follow it"
            continue
        assert panel["targets"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["legendFormat"]
            assert target["instant"] is (panel["type"] == "stat"), panel["title"]


@each_dashboard
def test_no_two_panels_overlap_and_none_leaves_the_grid(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard(path)["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= _COLUMNS
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    rows = max(y for _, y in taken) + 1
    assert len(taken) == rows * _COLUMNS, "the grid has holes"


@each_dashboard
def test_the_variables_lead_from_the_data_source_to_one_flow_aggregator(path: Path) -> None:
    variables: list[dict[str, Any]] = dashboard(path)["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["datasource", "namespace", "instance"]
    known = known_metrics()
    for variable in variables[1:]:
        ((name, labels),) = list(selectors(variable["query"]["query"])) or [
            (variable["query"]["query"].removeprefix("label_values(").partition(",")[0], frozenset[str]())
        ]
        assert name in known
        assert labels <= TARGET_LABELS


@each_dashboard
def test_every_query_keeps_to_the_namespace_and_the_flow_aggregator_that_were_chosen(path: Path) -> None:
    for panel in panels(dashboard(path), "flows", "main"):
        for name, labels in selectors(panel.expr):
            wanted = {"namespace"} if name == "ALERTS" else {"namespace", "flowaggregator"}
            assert wanted <= labels, f"{panel.title}: {name}"


@each_dashboard
def test_every_query_is_on_series_that_there_are_and_on_labels_that_these_have(path: Path) -> None:
    known = known_metrics()
    for panel in panels(dashboard(path), "flows", "main"):
        asked = list(selectors(panel.expr))
        assert asked, panel.title
        has = set(TARGET_LABELS)
        for name, labels in asked:
            assert name in known, f"{panel.title}: there is no {name}"
            assert labels <= known[name] | TARGET_LABELS, f"{panel.title}: {name} lacks {labels - known[name]}"
            has |= known[name]
        assert grouped(panel.expr) <= has, panel.title


@each_dashboard
def test_every_legend_uses_labels_that_the_query_leaves(path: Path) -> None:
    for panel in dashboard(path)["panels"]:
        for target in panel.get("targets", []):
            used = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
            assert used <= grouped(target["expr"]), f"{panel['title']}: {target['legendFormat']}"


@each_dashboard
def test_promtool_can_read_every_query(path: Path, tmp_path: Path) -> None:
    queries = panels(dashboard(path), "flows", "main")
    rules = [{"record": f"panel:{number}", "expr": panel.expr} for number, panel in enumerate(queries)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in promtool("check", "rules", file, directory=tmp_path)


def test_promtool_refuses_what_is_no_query(tmp_path: Path) -> None:
    file = tmp_path / "panels.yaml"
    rules = [{"record": "panel:0", "expr": "sum by (pod (up)"}]
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    with pytest.raises(AssertionError, match="parse error"):
        promtool("check", "rules", file, directory=tmp_path)

"""helm lint, the golden renders, and that Helm 3 and Helm 4 render alike."""

import difflib

import pytest

from tests.chart.charts import CHART, GOLDEN, HELMS, VALUES, golden, objects, render, run, value_files


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", value_files())
def test_the_chart_passes_lint(helm: str, name: str) -> None:
    run(helm, "lint", "--strict", str(CHART), "--values", str(VALUES / f"{name}.yaml"))


@pytest.mark.parametrize("name", value_files())
def test_a_render_is_the_golden_one(name: str) -> None:
    kept = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    found = golden(render(name))
    changes = "\n".join(difflib.unified_diff(kept.splitlines(), found.splitlines(), "golden", "now", lineterm="", n=2))
    assert found == kept, f"python -m tests.chart writes it anew, if this is meant:\n{changes}"


def test_each_golden_render_has_its_values() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == value_files()


@pytest.mark.cluster
@pytest.mark.parametrize("name", value_files())
def test_helm_3_and_helm_4_render_alike(name: str) -> None:
    assert golden(render(name, "helm3")) == golden(render(name, "helm"))


@pytest.mark.parametrize("name", value_files())
def test_no_two_objects_have_one_name(name: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in objects(render(name))]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", value_files())
def test_each_object_names_its_namespace(name: str) -> None:
    free = {"ClusterRole", "ClusterRoleBinding"}
    assert {found["metadata"].get("namespace") for found in objects(render(name)) if found["kind"] not in free} == {
        "flows"
    }

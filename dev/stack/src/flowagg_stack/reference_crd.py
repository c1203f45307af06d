"""The reference of the FlowAggregator resource, docs/reference/crd.md, from the schema that the API server has."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flowagg_operator import crd
from flowagg_operator.reasons import REASONS

_HEAD: Final = """# FlowAggregator

`flowaggregator.io/v1alpha1`, kind `FlowAggregator`, short name `fa`. The least that one needs:

```yaml
apiVersion: flowaggregator.io/v1alpha1
kind: FlowAggregator
metadata: {name: main}
spec:
  kafka: {bootstrapServers: "kafka:9092"}
  redis: {url: "redis://redis:6379"}
```

```console
$ kubectl get fa                            # is it ready, and if not, why
$ kubectl describe fa main                  # what each condition says to do, and what the operator has done
$ kubectl scale fa/main --replicas=3        # consumers
```

What breaks a rule is refused by the API server, with the rule's own words.
"""


def crd_reference(note: str) -> str:
    """The page. note: the line that says that it is generated."""
    version = crd.load()["spec"]["versions"][0]
    parts = version["schema"]["openAPIV3Schema"]["properties"]
    title, rest = _HEAD.split("\n", 1)
    lines = [title + "\n", note.rstrip("\n"), rest]
    for name in ("spec", "status"):
        for path, part in _objects(name, parts[name]):
            lines += _section(path, part)
    lines += ["## Conditions", ""]
    for kind, reasons in REASONS.items():
        lines += [f"### {kind}", "", "| reason | what it means, and what to do |", "| --- | --- |"]
        lines += [f"| `{reason}` | {text} |" for reason, text in reasons.items()]
        lines.append("")
    return "\n".join(lines)


def _objects(path: str, part: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An object of the schema and those inside of it that have fields, in order."""
    yield path, part
    for name, below in part.get("properties", {}).items():
        inner = below.get("items", below)
        if "properties" in inner and name != "conditions":
            yield from _objects(f"{path}.{name}" + ("[]" if "items" in below else ""), inner)


def _section(path: str, part: Mapping[str, Any]) -> list[str]:
    lines = [f"## {path}", "", part.get("description", ""), "", "| field | type | default | bounds | meaning |"]
    lines.append("| --- | --- | --- | --- | --- |")
    required = part.get("required", [])
    for name, field in part["properties"].items():
        default = "required" if name in required else _default(field)
        kind = _kind(field)
        lines.append(f"| `{name}` | {kind} | {default} | {_bounds(field)} | {_meaning(field)} |")
    rules = [rule["message"] for rule in part.get("x-kubernetes-validations", [])]
    lines += ["", *(f"- Rule: {rule}." for rule in rules), *([""] if rules else [])]
    return lines


def _kind(field: Mapping[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(field['items'])}s"
    if kind == "object" and "additionalProperties" in field:
        return f"map of {_kind(field['additionalProperties'])}s"
    return f"{kind} or null" if field.get("nullable") else kind


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if default is None or isinstance(default, Mapping | list):
        return ""  # that of its own fields
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(field: Mapping[str, Any]) -> str:
    found = []
    for name, sign in (("minimum", ">="), ("maximum", "<="), ("minItems", ">= "), ("maxItems", "<= ")):
        if name in field:
            found.append(f"{sign.strip()} {field[name]}" + (" items" if name.endswith("Items") else ""))
    if "enum" in field:
        found.append(", ".join(f"`{value}`" for value in field["enum"]))
    return "; ".join(found)


def _meaning(field: Mapping[str, Any]) -> str:
    rules = [str(rule["message"]) for rule in field.get("x-kubernetes-validations", [])]
    own = rules if "properties" not in field else []
    sentences = [str(field.get("description", "")), *(f"Rule: {rule}." for rule in own)]
    return " ".join(sentences).replace("|", "\\|")

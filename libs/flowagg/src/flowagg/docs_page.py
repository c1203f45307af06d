"""An OpenAPI document as one page for people: static HTML, no script, nothing from elsewhere."""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final

Json = Mapping[str, Any]

STYLE: Final = """
:root {
  color-scheme: light dark;
  --back: #ffffff; --panel: #f5f7fb; --line: #dde3ee; --text: #1a2233; --soft: #566179; --link: #2456c7;
  --get: #1b6e3c; --post: #2456c7; --head: #6b4fa3; --good: #1b6e3c; --bad: #a3341f; --mark: #e3ecff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #11151d; --panel: #1a202c; --line: #2d3648; --text: #e3e8f2; --soft: #9aa6bd; --link: #8ab0ff;
    --get: #5fcf8d; --post: #8ab0ff; --head: #c0a5f5; --good: #5fcf8d; --bad: #ff9580; --mark: #233252;
  }
}
* { box-sizing: border-box }
html { scroll-padding-top: 1rem }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, "Segoe UI", sans-serif }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
a:focus-visible, pre:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
code, pre { font: 0.875em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
:not(pre) > code { background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: 0 0.25em;
  overflow-wrap: anywhere }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: 1rem; background: var(--back); padding: 0.5rem 1rem }
.page { display: grid; grid-template-columns: 15rem minmax(0, 1fr); max-width: 78rem; margin: 0 auto }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow: auto; padding: 2rem 1rem 2rem 1.5rem;
  font-size: 0.9rem }
nav h2 { font-size: 0.75rem; letter-spacing: 0.06em; text-transform: uppercase; color: var(--soft);
  margin: 1.2rem 0 0.3rem; border: 0; padding: 0 }
nav ul { list-style: none; margin: 0; padding: 0 }
nav li a { display: flex; gap: 0.5rem; align-items: baseline; padding: 0.2rem 0; color: var(--text) }
main { padding: 2rem 2rem 5rem; border-left: 1px solid var(--line); min-width: 0 }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 0.3rem }
h1 small { font-size: 0.9rem; font-weight: 500; color: var(--soft); margin-left: 0.4rem }
h2 { font-size: 1.35rem; margin: 3rem 0 0.5rem; padding-top: 1.5rem; line-height: 1.3;
  border-top: 1px solid var(--line) }
h3 { font-size: 1.1rem; margin: 0 0 0.2rem; overflow-wrap: anywhere }
h4 { font-size: 0.95rem; margin: 1.5rem 0 0.4rem }
p { margin: 0.4rem 0; max-width: 46rem }
.lead { font-size: 1.1rem; color: var(--soft) }
article { margin: 1.5rem 0; padding: 1.3rem 1.4rem; border: 1px solid var(--line); border-radius: 10px }
.method { display: inline-block; min-width: 3.4em; text-align: center;
  font: 700 0.75em/1.6 ui-monospace, Menlo, Consolas, monospace;
  border: 1.5px solid currentColor; border-radius: 5px; padding: 0 0.4em }
.get { color: var(--get) } .post { color: var(--post) } .head { color: var(--head) }
nav .method { border: 0; padding: 0; text-align: left }
.path { font: 600 1em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.summary { color: var(--soft); font-weight: 500; margin: 0 0 0.5rem }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem }
th, td { text-align: left; vertical-align: top; padding: 0.5rem 0.8rem; border-top: 1px solid var(--line) }
tr:first-child > * { border-top: 0 }
thead th { background: var(--panel); font-size: 0.78rem; color: var(--soft); font-weight: 600 }
tbody tr:first-child > * { border-top: 1px solid var(--line) }
tbody th { font-weight: 600; white-space: nowrap; width: 1% }
th .also { min-width: 8.5rem; margin: 0 }
td.type { color: var(--soft); min-width: 9rem }
.need { color: var(--bad); font-size: 0.75rem; font-weight: 600; display: block }
.good { color: var(--good) } .bad { color: var(--bad) }
.also { display: block; margin-top: 0.3rem; font-weight: 400; white-space: normal;
  font-size: 0.85rem; color: var(--soft) }
pre { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem 1rem;
  overflow-x: auto; white-space: pre }
pre.copy code { user-select: all; -webkit-user-select: all; cursor: text }
figure { margin: 0.6rem 0 }
figcaption { font-size: 0.85rem; color: var(--soft); margin-bottom: 0.25rem }
details { margin: 0.6rem 0 }
summary { cursor: pointer; color: var(--link); font-size: 0.92rem; padding: 0.2rem 0 }
tr:target { background: var(--mark) }
article:target { border-color: var(--link); box-shadow: 0 0 0 1px var(--link) }
@media (max-width: 50rem) {
  .page { display: block }
  nav { position: static; max-height: none; padding: 1.2rem 1rem 0.5rem; border-bottom: 1px solid var(--line) }
  nav ul { display: flex; flex-wrap: wrap; gap: 0.1rem 1.2rem }
  nav li a { padding: 0.25rem 0 } nav .method { min-width: 0 }
  main { padding: 1.2rem 1rem 3rem; border: 0 }
  nav h2 { margin: 0.7rem 0 0.1rem }
  pre.copy { white-space: pre-wrap; overflow-wrap: anywhere }
  article { padding: 1rem 0.9rem } h1 { font-size: 1.6rem }
  table, tbody, tbody tr, tbody th, tbody td { display: block } thead { display: none }
  tbody tr { padding: 0.6rem 0.8rem; border-top: 1px solid var(--line) } tbody tr:first-child { border-top: 0 }
  tbody tr > *, tbody tr:first-child > * { border: 0; padding: 0.1rem 0; width: auto }
  .need { display: inline; margin-left: 0.5rem }
}
@media print { nav { display: none } .page { display: block } main { border: 0 } article { break-inside: avoid-page } }
"""
"""The page's only style sheet: a Content-Security-Policy can name it by its hash."""


def page(document: Json) -> str:
    """The page. document: OpenAPI 3.1 as flowagg.openapi makes it."""
    info = document["info"]
    title = f"{escape(info['title'])} HTTP API"
    sections = "".join(_section(document, tag) for tag in document["tags"])
    schemas = "".join(_schema(document, name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="description" content="{escape(info["summary"])}">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">To the content</a>\n<div class="page">\n'
        f"{_navigation(document)}"
        f'<main id="content">\n<header><h1>{title} <small>{escape(info["version"])}</small></h1>\n'
        f'<p class="lead">{_text(info["description"])}</p>\n'
        '<p>The same as data: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1). A click into a command selects '
        "all of it; put your address in the place of the example's.</p></header>\n"
        f"{sections}{_security(document)}"
        f'<section id="schemas"><h2>Objects</h2>\n{schemas}</section>\n'
        "</main>\n</div>\n</body>\n</html>\n"
    )


# Sections ----------------------------------------------------------------------------------------


def _operations(document: Json, tag: str) -> Iterable[tuple[str, str, Json]]:
    """(method, path, operation) of a tag."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if tag in operation["tags"]:
                yield method, path, operation


def _navigation(document: Json) -> str:
    parts = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{escape(operation["operationId"])}"><span class="method {method}">{method.upper()}</span>'
            f" {escape(path)}</a></li>"
            for method, path, operation in _operations(document, tag["name"])
        )
        parts.append(f"<h2>{escape(_capital(tag['name']))}</h2><ul>{links}</ul>")
    objects = "".join(
        f'<li><a href="#schema-{escape(name)}">{escape(name)}</a></li>' for name in document["components"]["schemas"]
    )
    also = '<li><a href="#tokens">Bearer tokens</a></li>'
    return (
        f'<nav aria-label="Contents">{"".join(parts)}<h2>Access</h2><ul>{also}</ul><h2>Objects</h2>'
        f"<ul>{objects}</ul></nav>\n"
    )


def _section(document: Json, tag: Json) -> str:
    found = "".join(_operation(document, *operation) for operation in _operations(document, tag["name"]))
    heading = f"<h2>{escape(_capital(tag['name']))}</h2><p>{_text(tag['description'])}</p>"
    return f'<section id="{escape(tag["name"])}">{heading}\n{found}</section>\n'


def _operation(document: Json, method: str, path: str, operation: Json) -> str:
    tokens = '<p>Takes a <a href="#tokens">bearer token</a> where the system has tokens.</p>'
    return (
        f'<article id="{escape(operation["operationId"])}">\n'
        f'<h3><span class="method {method}">{method.upper()}</span> <span class="path">{escape(path)}</span></h3>\n'
        f'<p class="summary">{_text(operation["summary"])}</p>\n'
        + (f"<p>{_text(operation['description'])}</p>\n" if "description" in operation else "")
        + (tokens if operation["security"] else "")
        + "".join(_command(sample) for sample in operation.get("x-codeSamples", ()))
        + (
            # Its parameters and answers are those of GET, which stand beside it.
            ""
            if method == "head"
            else _parameters(document, operation.get("parameters", ()))
            + (_body(document, operation["requestBody"]) if "requestBody" in operation else "")
            + _responses(operation["responses"])
        )
        + "</article>\n"
    )


def _command(sample: Json) -> str:
    return (
        f'<figure><figcaption>{escape(sample["label"])}</figcaption><pre class="copy" tabindex="0"><code>'
        f"{escape(sample['source'])}</code></pre></figure>\n"
    )


def _parameters(document: Json, parameters: Iterable[Json]) -> str:
    rows = []
    for given in parameters:
        parameter = _resolved(document, given)
        need = '<span class="need">required</span>' if parameter["required"] else ""
        example = f" For example <code>{escape(str(parameter['example']))}</code>." if "example" in parameter else ""
        rows.append(
            f'<tr><th scope="row"><code>{escape(parameter["name"])}</code>{need}</th>'
            f'<td>{escape(parameter["in"])}</td><td class="type">{_type(parameter["schema"])}</td>'
            f"<td>{_text(parameter['description'])}{example}</td></tr>"
        )
    return _table("Parameters", ("name", "in", "type", "meaning"), rows)


def _body(document: Json, body: Json) -> str:
    parts = [f"<h4>Body</h4><p>{_text(body['description'])}</p>"]
    rows = []
    for media_type, content in body["content"].items():
        named = content["schema"]["$ref"].rpartition("/")[2]
        told = content["schema"].get("description") or f"An array of {_items(document, named)} objects."
        rows.append(
            f'<tr><th scope="row"><code>{escape(media_type)}</code></th>'
            f"<td>{_link(named)}</td><td>{_text(told)}</td></tr>"
        )
    parts.append(_table("", ("media type", "object", "form"), rows))
    parts += [_examples(content.get("examples", {})) for content in body["content"].values()]
    return "".join(parts)


def _responses(responses: Json) -> str:
    rows, examples = [], []
    for status, response in responses.items():
        kind = "good" if status < "400" else "bad"
        phrase = HTTPStatus(int(status)).phrase
        content = "".join(
            f'<span class="also"><code>{escape(media_type)}</code> {_shape(media["schema"])}</span>'
            for media_type, media in response.get("content", {}).items()
        )
        headers = ", ".join(
            f'<a href="#header-{escape(name)}">{escape(name)}</a>' for name in response.get("headers", {})
        )
        also = f'<span class="also">Headers: {headers}</span>' if headers else ""
        rows.append(
            f'<tr><th scope="row"><b class="{kind}">{escape(status)}</b>'
            f'<span class="also">{escape(phrase)}</span></th>'
            f"<td>{_text(response['description'])}{content}{also}</td></tr>"
        )
        examples += [_examples(media.get("examples", {}), status) for media in response.get("content", {}).values()]
    return _table("Answers", ("status", "when and what"), rows) + "".join(examples)


def _examples(examples: Json, status: str = "") -> str:
    return "".join(
        f"<details><summary>{escape(' '.join(['Example', status]).strip())}"
        f"{': ' + _text(example['summary']) if 'summary' in example else ''}</summary>"
        f'<pre tabindex="0"><code>{escape(_json(example["value"]))}</code></pre></details>\n'
        for example in examples.values()
    )


def _security(document: Json) -> str:
    parts = ['<section id="headers"><h2>Headers of answers</h2>\n']
    rows = [
        f'<tr id="header-{escape(name)}"><th scope="row"><code>{escape(name)}</code></th>'
        f"<td>{_text(header['description'])}</td></tr>"
        for name, header in document["components"]["headers"].items()
    ]
    parts.append(_table("", ("header", "meaning"), rows))
    scheme = document["components"]["securitySchemes"]["bearer"]
    parts.append(
        f'</section>\n<section id="tokens"><h2>Bearer tokens</h2><p>{_text(scheme["description"])} '
        "Send it as <code>Authorization: Bearer TOKEN</code>.</p></section>\n"
    )
    return "".join(parts)


def _schema(document: Json, name: str, schema: Json) -> str:
    heading = f'<article id="schema-{escape(name)}"><h3 class="path">{escape(name)}</h3>'
    told = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    if schema["type"] == "array":
        most = f", {schema['maxItems']:,} at most" if "maxItems" in schema else ""
        return f"{heading}<p>An array of {_link(_items(document, name))} objects{most}.</p></article>\n"
    rows = [
        f'<tr><th scope="row"><code>{escape(field)}</code>'
        + ("" if field in schema["required"] else '<span class="also">optional</span>')
        + f'</th><td class="type">{_type(value)}</td><td>{_text(value.get("description", ""))}</td></tr>'
        for field, value in schema["properties"].items()
    ]
    return f"{heading}{told}{_table('', ('field', 'type', 'meaning'), rows)}</article>\n"


# Parts -------------------------------------------------------------------------------------------


def _resolved(document: Json, given: Json) -> Json:
    found: Any = given
    if "$ref" in given:
        found = document
        for step in given["$ref"].removeprefix("#/").split("/"):
            found = found[step]
    return dict(found)


def _items(document: Json, name: str) -> str:
    reference: str = document["components"]["schemas"][name]["items"]["$ref"]
    return reference.rpartition("/")[2]


def _shape(schema: Json) -> str:
    return _link(schema["$ref"].rpartition("/")[2]) if "$ref" in schema else escape(schema["type"])


def _link(name: str) -> str:
    return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'


def _type(schema: Json) -> str:
    """A schema in words: `integer, 0 to 9007199254740991`."""
    if "enum" in schema:
        shown = [f"<code>{escape(str(value))}</code>" for value in schema["enum"]]
        return ", ".join(shown) + (f"; default <code>{schema['default']}</code>" if "default" in schema else "")
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "anyOf" in schema:
        return "; or ".join(_type(one) for one in schema["anyOf"])
    if schema["type"] == "array":
        most = f", {schema['maxItems']} at most" if "maxItems" in schema else ""
        return f"any number of{escape(most)}: {_type(schema['items'])}"
    words = schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])
    low, high = schema.get("minimum"), schema.get("maximum")
    shortest, longest = schema.get("minLength"), schema.get("maxLength")
    if low is not None and high is not None:
        words += f", {low} to {high}"
    elif low is not None:
        words += f", from {low}"
    if shortest is not None and longest is not None:
        words += f" of {shortest} to {longest:,} characters"
    return escape(words)


def _table(heading: str, columns: Iterable[str], rows: Iterable[str]) -> str:
    body = "\n".join(rows)
    if not body:
        return ""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    title = f"<h4>{heading}</h4>\n" if heading else ""
    return f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def _text(text: str) -> str:
    """Plain words with `code` in them, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _json(value: Any) -> str:
    """JSON with one flow a line."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False, indent=None if isinstance(value, list) else 2)


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]

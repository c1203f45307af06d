// The page at /ui: asks GET /flows and GET /hours, as any client does.
// Answers are read as CSV: their numbers may be larger than JavaScript's, and text keeps them exact.

const NAMES = ["src_app", "dest_app", "vpc_id"];
const LABELS = { src_app: "Source", dest_app: "Destination", vpc_id: "VPC", hour: "Hour", bytes_tx: "Sent", bytes_rx: "Received" };
const KEY = [...NAMES, "hour"];
const FIRST_ROWS = 100;
const MOST_ROWS = 10000;
const TALKERS = 10;
const MATRIX = 10;
const COMPLETIONS = 20;
const TYPING_MS = 150;
// Of the chart of hours: as many of the latest ones as hold so many flow keys, so that it comes at once.
const CHART_HOURS = 168n;
const CHART_FLOW_KEYS = 1000000n;

const at = (id) => document.getElementById(id);
const form = at("query");
const state = { order: { by: "bytes", descending: true }, rows: FIRST_ROWS, token: sessionStorage.getItem("token") ?? "" };

// Asking ------------------------------------------------------------------------------------------

// The last answer to each question, by its address: asked again with its tag, and kept while it is 304.
const answers = new Map();

class Trouble extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, parameters, signal) {
  const address = `../${path}?${new URLSearchParams([...parameters, ["format", "csv"]])}`;
  const before = answers.get(address);
  const headers = before ? { "If-None-Match": before.tag } : {};
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  let reply;
  try {
    reply = await fetch(address, { headers, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(0, "The reader cannot be reached.");
  }
  const fresh = reply.headers.get("Flowagg-Fresh") === "true";
  if (reply.status === 304) {
    return Object.assign(before, { fresh });
  }
  if (!reply.ok) {
    const problem = await reply.json().catch(() => ({}));
    throw new Trouble(reply.status, problem.detail ?? `${reply.status} ${reply.statusText}`);
  }
  const [fields, ...lines] = parsed(await reply.text());
  const answer = {
    tag: reply.headers.get("ETag"),
    fresh,
    lag: reply.headers.get("Flowagg-Lag-Records"),
    expired: reply.headers.get("Flowagg-Expired") === "true",
    incomplete: reply.headers.get("Flowagg-Incomplete") === "true",
    rows: lines.map((line) => row(fields, line)),
  };
  answers.set(address, answer);
  for (const oldest of answers.keys()) {
    if (answers.size <= 60) break;
    answers.delete(oldest);
  }
  return answer;
}

// RFC 4180: a quoted cell may hold commas, line ends and doubled quotes.
function parsed(text) {
  const lines = [];
  let line = [];
  const cell = /"((?:[^"]|"")*)"(,|\r\n|$)|([^,\r\n"]*)(,|\r\n|$)/gy;
  while (cell.lastIndex < text.length) {
    const [, quoted, quotedEnd, plain, plainEnd] = cell.exec(text);
    line.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if ((quotedEnd ?? plainEnd) !== ",") {
      lines.push(line);
      line = [];
    }
  }
  return lines;
}

// No name is empty, so an empty cell is null: the row of all others.
function row(fields, cells) {
  const found = {};
  fields.forEach((field, place) => {
    const text = cells[place];
    found[field] = NAMES.includes(field) ? text || null : text === "" ? null : BigInt(text);
  });
  if ("bytes_tx" in found) found.bytes = found.bytes_tx + found.bytes_rx;
  return found;
}

// What the form says ------------------------------------------------------------------------------

const escaped = (name) => name.replaceAll(/[\\*?]/g, "\\$&");
const measure = () => form.measure.value;

function filters(without) {
  const found = without === "hour" ? [] : [["hour", form.hour.value || "0-"]];
  for (const name of NAMES) if (form[name].value && name !== without) found.push([name, form[name].value]);
  return found;
}

function remember() {
  const kept = new URLSearchParams();
  kept.set("hour", form.hour.value); // also where it is empty: without it the page begins with the latest hour
  for (const name of NAMES) if (form[name].value) kept.set(name, form[name].value);
  if (measure() !== "bytes") kept.set("measure", measure());
  const address = `?${kept}`;
  if (address !== location.search) history.pushState(null, "", address);
}

function recall() {
  const kept = new URLSearchParams(location.search);
  for (const name of ["hour", ...NAMES]) form[name].value = kept.get(name) ?? "";
  form.measure.value = kept.get("measure") ?? "bytes";
  state.order = { by: measure(), descending: true };
}

// Showing -----------------------------------------------------------------------------------------

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

function short(bytes) {
  let value = Number(bytes);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 99.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

const exact = (bytes) => `${bytes.toLocaleString()} bytes`;
const share = (part, whole) => (whole ? Number((part * 10000n) / whole) / 100 : 0);

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

// What had the focus has it again, though it is made anew.
function redraw(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  container.replaceChildren(...children);
  if (focused !== undefined) [...container.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}

const nothing = () => element("p", { className: "nothing" }, "Nothing here.");

function showHours(rows, asked, kept) {
  at("hours-title").textContent = asked < kept ? `Traffic by hour, the last ${asked.toLocaleString()} of ${kept.toLocaleString()}` : "Traffic by hour";
  const by = measure();
  const most = rows.reduce((largest, one) => (one[by] > largest ? one[by] : largest), 0n);
  const chosen = form.hour.value;
  redraw(
    at("hours"),
    ...rows.map((one) => {
      const hour = String(one.hour);
      const bar = element("span");
      bar.style.height = `${share(one[by], most) * 0.8}%`;
      const button = element(
        "button",
        { type: "button", title: `Hour ${hour}: ${exact(one[by])}`, "aria-label": `Hour ${hour}, ${short(one[by])}`, "aria-pressed": String(chosen === hour), "data-key": hour },
        bar,
        element("small", {}, hour),
      );
      button.addEventListener("click", () => choose({ hour: chosen === hour ? "" : hour }));
      return button;
    }),
    ...(rows.length ? [] : [nothing()]),
  );
}

function showTop(rows, fields) {
  const by = measure();
  const whole = rows.reduce((sum, one) => sum + one[by], 0n);
  redraw(
    at("top"),
    ...rows.map((one) => {
      const part = share(one[by], whole);
      const bar = element("span", { className: "bar" });
      bar.style.width = `${part}%`;
      const text = fields.map((field) => one[field]).join(" → ");
      const others = one[fields[0]] === null;
      const label = others ? element("span", { className: "others" }, "all others") : element("button", { type: "button", title: `Only ${text}`, "data-key": text }, text);
      if (!others) label.addEventListener("click", () => choose(Object.fromEntries(fields.map((field) => [field, escaped(one[field])]))));
      return element("li", {}, bar, label, element("span", { title: exact(one[by]) }, `${short(one[by])} · ${part.toFixed(1)} %`));
    }),
    ...(rows.length ? [] : [element("li", { className: "nothing" }, "Nothing here.")]),
  );
}

function showMatrix(sources, destinations, rows) {
  const by = measure();
  const cells = new Map(rows.map((one) => [`${one.src_app}\n${one.dest_app}`, one[by]]));
  const most = rows.reduce((largest, one) => (one[by] > largest ? one[by] : largest), 0n);
  const head = element("tr", {}, element("th", { scope: "col" }, "from ↓ to →"), ...destinations.map((name) => element("th", { scope: "col", title: name, className: "number" }, name)));
  const body = sources.map((source) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", title: source }, source),
      ...destinations.map((destination) => {
        const bytes = cells.get(`${source}\n${destination}`);
        if (bytes === undefined) return element("td", { className: "number" });
        const cell = element("td", { className: "number", title: `${source} → ${destination}: ${exact(bytes)}` }, short(bytes));
        // By the square root: a few cells have most of the traffic, as a rule.
        cell.style.backgroundColor = `rgba(var(--heat), ${(0.06 + 0.5 * Math.sqrt(share(bytes, most) / 100)).toFixed(3)})`;
        return cell;
      }),
    ),
  );
  at("matrix").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  if (!rows.length) at("matrix").replaceChildren();
}

function showRows(rows) {
  const fields = [...KEY, "bytes_tx", "bytes_rx"];
  const { by, descending } = state.order;
  redraw(
    at("rows").tHead.rows[0],
    ...fields.map((field) => {
      const button = element("button", { type: "button", "data-key": field }, LABELS[field]);
      button.addEventListener("click", () => sortBy(field));
      const sorted = by === field ? (descending ? "descending" : "ascending") : "none";
      return element("th", { scope: "col", "aria-sort": sorted, className: KEY.includes(field) && field !== "hour" ? "" : "number" }, button);
    }),
  );
  const cell = (one, field) =>
    field.startsWith("bytes")
      ? element("td", { className: "number", title: exact(one[field]) }, one[field].toLocaleString())
      : element("td", { className: field === "hour" ? "number" : "", title: String(one[field]) }, String(one[field]));
  const last = rows.at(-1);
  const others = last !== undefined && last.src_app === null ? last : undefined;
  const shown = others ? rows.slice(0, -1) : rows;
  at("rows").tBodies[0].replaceChildren(
    ...shown.map((one) => element("tr", {}, ...fields.map((field) => cell(one, field)))),
    ...(others ? [element("tr", { className: "others" }, element("td", { colSpan: 4 }, "all others"), cell(others, "bytes_tx"), cell(others, "bytes_rx"))] : []),
  );
  const sum = (field) => rows.reduce((total, one) => total + one[field], 0n);
  const total = { bytes_tx: sum("bytes_tx"), bytes_rx: sum("bytes_rx") };
  at("rows").tFoot.replaceChildren(element("tr", {}, element("th", { scope: "row", colSpan: 4 }, "Total"), cell(total, "bytes_tx"), cell(total, "bytes_rx")));
  at("rows-note").textContent = shown.length ? `${shown.length.toLocaleString()} rows${others ? ", and all others in one" : ""}.` : "No flows match.";
  at("more").hidden = !others || state.rows >= MOST_ROWS;
}

// All rows that match, page by page, with the token: a plain link could have neither.
async function download() {
  const button = at("as-csv");
  const parts = [];
  button.disabled = true;
  try {
    const query = [...filters(), ["limit", "50000"], ["format", "csv"]];
    for (let cursor = null; ; ) {
      const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
      const reply = await fetch(`../flows?${new URLSearchParams(cursor === null ? query : [...query, ["cursor", cursor]])}`, { headers, cache: "no-store" });
      if (!reply.ok) throw new Trouble(reply.status, (await reply.json().catch(() => ({}))).detail ?? reply.statusText);
      const text = await reply.text();
      parts.push(parts.length ? text.slice(text.indexOf("\r\n") + 2) : text);
      cursor = /[?&]cursor=([^&>]+)/.exec(reply.headers.get("Link") ?? "")?.[1] ?? null;
      if (cursor === null) break;
    }
    const address = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
    element("a", { href: address, download: "flows.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    at("trouble").textContent = `The rows could not be downloaded: ${error.message}`;
  } finally {
    button.disabled = false;
  }
}

function showFreshness(found) {
  const stale = found.some((answer) => !answer.fresh);
  const text = stale ? "Some flows may be missing: not all that was sent is counted yet." : "All that was acknowledged is here.";
  const more = [];
  if (found.some((answer) => answer.incomplete)) more.push("The log has lost flows before they were counted.");
  if (found.some((answer) => answer.expired)) more.push("Earlier hours have expired.");
  const status = at("freshness");
  const said = [text, ...more].join(" ");
  if (status.textContent !== said) status.textContent = said; // a reader of the screen hears changes alone
  status.className = stale ? "stale" : "fresh";
}

// Going on ----------------------------------------------------------------------------------------

let current = new AbortController();
let timer = 0;
let shownFor = "";
let first = true;
let drawn = [];
const NO_CELLS = { rows: [], fresh: true };

async function show() {
  current.abort();
  current = new AbortController();
  clearTimeout(timer);
  const { signal } = current;
  try {
    await load(signal);
    at("trouble").textContent = "";
    at("sign-in").hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return;
    at("trouble").textContent = error.message;
    const refused = error.status === 401 || error.status === 403;
    if (refused && at("sign-in").hidden) {
      at("sign-in").hidden = false;
      at("token").focus();
    }
  }
  if (signal.aborted || document.hidden) return;
  const seconds = Number(at("refresh").value);
  if (seconds) timer = setTimeout(show, seconds * 1000);
}

function latest(kept) {
  const chosen = [];
  let flowKeys = 0n;
  for (const { hour, flow_keys: count } of kept.toReversed()) {
    flowKeys += count ?? 0n;
    if (chosen.length && (BigInt(chosen.length) >= CHART_HOURS || flowKeys > CHART_FLOW_KEYS)) break;
    chosen.push(hour);
  }
  return chosen.toReversed();
}

async function load(signal) {
  const kept = await ask("hours", [], signal);
  const chart = latest(kept.rows);
  if (first && !location.search && chart.length) form.hour.value = String(chart.at(-1));
  first = false;
  const by = measure();
  const fields = at("talkers").value.split(",");
  const way = state.order.descending ? "desc" : "asc";
  const order = [["order_by", by]];
  const grouped = (name, top) => [...filters(), ["group_by", name], ["top", String(top)], ...order];
  const [hours, top, sources, destinations, rows] = await Promise.all([
    ask("flows", [["hour", chart.join(",") || "0"], ...filters("hour"), ["group_by", "hour"]], signal),
    ask("flows", grouped(fields.join(","), TALKERS), signal),
    ask("flows", grouped("src_app", MATRIX), signal),
    ask("flows", grouped("dest_app", MATRIX), signal),
    ask("flows", [...filters(), ["order_by", `${state.order.by}:${way}`], ["top", String(state.rows)]], signal),
  ]);
  const named = (answer, field) => answer.rows.map((one) => one[field]).filter((name) => name !== null);
  const matrix = { from: named(sources, "src_app"), to: named(destinations, "dest_app") };
  let cells = NO_CELLS;
  if (matrix.from.length) {
    const kept = filters().filter(([name]) => name === "hour" || name === "vpc_id");
    const of = [...matrix.from.map((name) => ["src_app", escaped(name)]), ...matrix.to.map((name) => ["dest_app", escaped(name)])];
    cells = await ask("flows", [...kept, ...of, ["group_by", "src_app,dest_app"]], signal);
  }
  const found = [kept, hours, top, sources, destinations, rows, cells];
  const asked = JSON.stringify([filters(), by, fields, state.order, state.rows]);
  // By the answers themselves: one may have come with a refresh that broke off before anything was drawn.
  if (asked !== shownFor || found.some((answer, place) => answer !== drawn[place])) {
    showHours(hours.rows, chart.length, kept.rows.length);
    showTop(top.rows, fields);
    showMatrix(matrix.from, matrix.to, cells.rows);
    showRows(rows.rows);
    shownFor = asked;
    drawn = found;
  }
  showFreshness(found);
}

function choose(fields) {
  for (const [name, value] of Object.entries(fields)) form[name].value = value;
  changed();
}

function changed() {
  if (!form.reportValidity()) return;
  state.rows = FIRST_ROWS;
  remember();
  show();
}

function sortBy(field) {
  const same = state.order.by === field;
  state.order = { by: field, descending: same ? !state.order.descending : field.startsWith("bytes") };
  show();
}

async function complete(name) {
  const typed = form[name].value;
  const list = at(`${name}-names`);
  try {
    if (name === "hour") {
      const found = await ask("hours", []);
      list.replaceChildren(...found.rows.map((one) => element("option", { value: String(one.hour) })));
      return;
    }
    const pattern = /[*?\\]/.test(typed) ? typed : `*${typed}*`;
    const parameters = [...filters(name), ...(typed ? [[name, pattern]] : []), ["group_by", name], ["top", String(COMPLETIONS)]];
    const found = await ask("flows", parameters);
    if (form[name].value !== typed) return;
    list.replaceChildren(...found.rows.filter((one) => one[name] !== null).map((one) => element("option", { value: escaped(one[name]) }, short(one.bytes))));
  } catch {
    list.replaceChildren(); // what is wrong is told by the page itself
  }
}

for (const name of ["hour", ...NAMES]) {
  let typing = 0;
  form[name].addEventListener("focus", () => complete(name));
  form[name].addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => complete(name), TYPING_MS);
  });
  form[name].addEventListener("change", changed);
}
form.measure.addEventListener("change", () => {
  state.order = { by: measure(), descending: true };
  changed();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  changed();
});
form.addEventListener("reset", () => setTimeout(() => {
  state.order = { by: "bytes", descending: true };
  changed();
}));
at("talkers").addEventListener("change", show);
at("refresh").addEventListener("change", show);
at("as-csv").addEventListener("click", download);
at("more").addEventListener("click", () => {
  state.rows = Math.min(MOST_ROWS, state.rows * 10);
  show();
});
at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = at("token").value.trim();
  sessionStorage.setItem("token", state.token);
  answers.clear();
  show();
});
at("theme").value = localStorage.getItem("theme") ?? "auto";
const themed = () => {
  const theme = at("theme").value;
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
};
at("theme").addEventListener("change", themed);
themed();
addEventListener("popstate", () => {
  recall();
  show();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else show();
});
recall();
show();

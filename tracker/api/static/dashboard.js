// The page at `/`: generations of one project as they move. Everything it shows comes from the API with the visitor's key, and is set as text.
const STATES = ["registered", "queued", "processing", "completed", "failed", "cancelled", "timed_out"];
const FINAL = new Set(["completed", "failed", "cancelled"]);
const PAGE = 50;
const MOST = 200; // in one page, by the API
const LOOK_AGAIN = 10_000; // ms: progress and the next look move without an event
const at = (id) => document.getElementById(id);
let key = sessionStorage.getItem("key") ?? "";
let shown = new Map(); // generations in the table, newest first
let next = null; // cursor of the page behind them
let opened = null; // id of the generation in the dialog
let stream = null;
let visit = 0; // grows with each look: answers to an older one are dropped
let filter = ""; // what is shown, which is not what is being typed
let loading = false;

class Refused extends Error {}

async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Authorization: `Bearer ${key}`, ...options.headers } });
  if (answer.status === 401) throw new Refused((await answer.json()).detail);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `HTTP ${answer.status}`);
  return answer;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const json = async (path, options) => (await call(path, options)).json();
const post = (path) => json(path, { method: "POST" });

function make(tag, fields = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined) continue;
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...inside.filter((one) => one !== null && one !== undefined));
  return made;
}

function span(ms) {
  const s = Math.abs(ms) / 1000;
  return s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : s < 129_600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} d`;
}

function when(time) {
  if (!time) return "";
  const ms = Date.parse(time) - Date.now();
  return make("time", { dateTime: time, title: time }, Math.abs(ms) < 1000 ? "now" : ms < 0 ? `${span(ms)} ago` : `in ${span(ms)}`);
}

const pill = (state) => make("span", { className: `state ${state}` }, state.replace("_", " "));
const link = (url) => (/^https?:/.test(url) ? make("a", { href: url, rel: "noreferrer", target: "_blank" }, url) : url);

function say(text) {
  at("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { at("said").textContent = ""; }, 6000);
}

async function attempt(doing) {
  try { return await doing(); } catch (wrong) {
    if (wrong instanceof Refused) leave(wrong.message); else say(wrong.message);
  }
}

function row(g) {
  const bar = g.state === "processing" && g.progress !== null ? make("progress", { value: g.progress, title: `${Math.round(g.progress * 100)} %` }) : null;
  const expected = !FINAL.has(g.state) && g.expected_at ? make("span", { className: "mild" }, "expected ", when(g.expected_at)) : null;
  const trouble = g.error?.message ?? (g.last_problem?.in_a_row ? g.last_problem.message : null);
  const name = make("button", { className: "open", type: "button", title: g.task_id }, g.task_id);
  const made = make("tr", {},
    make("td", {}, pill(g.state)),
    make("td", {}, g.provider, g.model ? make("span", { className: "mild" }, ` ${g.model}`) : null),
    make("td", { className: "task" }, name),
    make("td", { className: "told", title: trouble }, trouble, bar, bar && expected ? " " : null, trouble ? null : expected),
    make("td", {}, when(g.registered_at)),
    make("td", {}, FINAL.has(g.state) ? "" : when(g.next_poll_at)),
    make("td", {}, String(g.polls)),
    make("td", {}, g.tags.join(", ")));
  name.addEventListener("click", () => attempt(() => open(g.id)));
  return made;
}

function draw() {
  const before = new Map([...at("rows").children].map((tr) => [tr.dataset.id, tr]));
  const rows = [...shown.values()].map((g) => {
    const told = JSON.stringify(g), kept = before.get(g.id);
    if (kept?.told === told) { tick(kept); return kept; }
    const made = Object.assign(row(g), { told });
    made.dataset.id = g.id;
    return made;
  });
  const focused = document.activeElement?.closest("tr")?.dataset.id;
  if (rows.length !== before.size || rows.some((tr, n) => at("rows").children[n] !== tr)) at("rows").replaceChildren(...rows);
  if (focused && document.activeElement === document.body) rows.find((tr) => tr.dataset.id === focused)?.querySelector("button").focus();
  at("empty").hidden = shown.size > 0;
  at("more").hidden = next === null;
  at("providers").replaceChildren(...[...new Set([...shown.values()].map((g) => g.provider))].sort().map((name) => make("option", { value: name })));
}

function tick(inside) {
  for (const time of inside.querySelectorAll("time")) time.textContent = when(time.dateTime).textContent;
}

function wished() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(at("filters"))) if (value) query.append(name, value);
  return query.toString();
}

async function pages(count) {
  // As many as are wanted, from the newest on, in as few calls as the API allows.
  const found = [];
  let cursor = null;
  do {
    const query = new URLSearchParams(filter);
    query.set("limit", Math.min(MOST, count - found.length));
    if (cursor) query.set("cursor", cursor);
    const page = await json(`/v1/generations?${query}`);
    found.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor && found.length < count);
  return { found, cursor };
}

async function load(count) {
  const mine = ++visit; // the latest wins, whatever it was for
  const { found, cursor } = await pages(count);
  if (mine !== visit) return;
  shown = new Map(found.map((g) => [g.id, g]));
  next = cursor;
  draw();
}

async function list() {
  filter = wished();
  await load(PAGE);
}

async function freshen() {
  if (loading) return; // older ones are on their way, and this would leave them out
  await load(Math.max(PAGE, shown.size));
  if (opened) await show(opened);
}

async function older() {
  loading = true;
  try { await load(shown.size + PAGE); } finally { loading = false; }
}

async function watch() {
  // Not EventSource: it cannot send the key. What is missed while this is away comes with the next look.
  stream?.abort();
  const mine = (stream = new AbortController());
  let last = null;
  while (!mine.signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const answer = await call("/v1/events", { headers, signal: mine.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", part; !(part = await reader.read()).done;) {
        const lines = (rest + part.value).split("\n");
        rest = lines.pop();
        const ids = lines.filter((line) => line.startsWith("id: "));
        if (!ids.length) continue;
        last = ids.at(-1).slice(4);
        await attempt(freshen);
        await pause(500); // where many things happen, what comes meanwhile is looked at together
      }
    } catch (wrong) {
      if (wrong instanceof Refused) return leave(wrong.message);
    }
    await pause(2000);
  }
}

async function health() {
  let text = "the tracker does not answer", well = false;
  try {
    const now = await (await fetch("/readyz")).json();
    well = now.healthy === true;
    const late = now.lag >= 1 ? `looks are ${now.lag.toFixed(0)} s late` : null;
    const names = Object.keys(now.stopped ?? {});
    const stopped = names.length ? `${names.join(" and ")} stopped by an operator` : null;
    text = [well ? "all well" : now.detail ?? "something is not well: tracker doctor tells", late, stopped].filter(Boolean).join(" · ");
  } catch { /* said already */ }
  at("health").className = well ? "" : "wrong";
  at("health").textContent = text;
}

async function paused() {
  const held = (await json("/v1/credentials")).data.filter((c) => c.state === "paused");
  const told = JSON.stringify(held);
  if (at("paused").dataset.told === told) return;
  at("paused").dataset.told = told;
  at("paused").replaceChildren(...held.map((c) => {
    const go = make("button", { type: "button" }, "Resume");
    go.addEventListener("click", () => attempt(async () => {
      await post(`/v1/credentials/${encodeURIComponent(c.name)}/resume`);
      await paused();
    }));
    return make("div", { className: "notice" },
      make("p", {}, make("strong", {}, `${c.name} (${c.providers.join(", ")}) is paused. `), c.paused_reason ?? "", " ", when(c.paused_at)), go);
  }));
}

function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", {}, ...told.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

async function player(g, copy) {
  const path = `/v1/generations/${g.id}/artifacts/${copy.kind}/${copy.index}/link`;
  const given = new URL((await post(path)).url, location.href);
  const tag = { video: "video", video_raw: "video", audio: "audio" }[copy.kind] ?? "img";
  const own = given.pathname.startsWith("/v1/") ? given.pathname + given.search : given.href; // whatever name people reach us by
  return make(tag, { src: own, controls: tag === "img" ? null : true, alt: copy.kind, preload: "metadata" });
}

async function open(id) {
  opened = id;
  delete at("facts").dataset.version;
  await show(id);
  if (opened === id && !at("detail").open) at("detail").showModal();
}

async function show(id) {
  const [g, steps, sent] = await Promise.all([
    json(`/v1/generations/${id}`), json(`/v1/generations/${id}/transitions`), json(`/v1/generations/${id}/deliveries`)]);
  if (opened !== id) return undefined;
  const version = `${g.version}/${g.polls}/${sent.data.map((d) => d.state).join()}`;
  if (at("facts").dataset.version === version) return tick(at("facts")); // a film that plays goes on
  at("facts").dataset.version = version;
  at("title").textContent = g.task_id;
  const doing = (name, path) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => attempt(async () => { await post(`/v1/generations/${id}/${path}`); say(`${name}: done`); await freshen(); }));
    return button;
  };
  const stored = g.artifacts.filter((copy) => copy.state === "stored" && !["thumbnail", "last_frame", "video_raw"].includes(copy.kind));
  const players = await Promise.all(stored.map((copy) => player(g, copy).catch(() => null)));
  if (opened !== id) return undefined;
  at("facts").replaceChildren(
    facts([
      ["state", pill(g.state)], ["provider", [g.provider, g.kind, g.model].filter(Boolean).join(" · ")], ["account", g.credential],
      ["provider says", g.provider_status], ["why", g.error && `${g.error.code}: ${g.error.message}`],
      ["last problem", g.last_problem?.in_a_row ? `${g.last_problem.code}, ${g.last_problem.in_a_row} in a row: ${g.last_problem.message}` : null],
      ["registered", when(g.registered_at)], ["finished", when(g.finished_at)], ["last look", when(g.last_polled_at)],
      ["next look", FINAL.has(g.state) ? null : when(g.next_poll_at)], ["expected", FINAL.has(g.state) ? null : when(g.expected_at)],
      ["looks", String(g.polls)], ["id", g.id]]),
    ...players.filter(Boolean),
    make("h3", {}, "Outputs"),
    g.outputs.length ? make("ul", {}, ...g.outputs.map((o) => {
      const copy = g.artifacts.find((one) => one.kind === o.kind && one.index === o.index);
      return make("li", {}, `${o.kind} `, link(o.url), copy ? make("span", {}, " ", pill(copy.state), copy.error ? ` ${copy.error}` : null) : null);
    })) : make("p", { className: "mild" }, FINAL.has(g.state) ? "none" : "none yet"),
    make("h3", {}, "History"),
    make("ol", {}, ...steps.data.map((s) => make("li", {}, pill(s.to), " ", when(s.at), s.provider_status ? make("span", { className: "mild" }, ` “${s.provider_status}”`) : null))),
    make("h3", {}, "Webhooks"),
    sent.data.length ? make("ul", {}, ...sent.data.map((d) => make("li", {}, `${d.type} `, pill(d.state), ` ${d.url} `, d.state === "pending" ? when(d.next_attempt_at) : null)))
      : make("p", { className: "mild" }, "nobody wanted any"),
    ...(Object.keys(g.metadata).length ? [make("h3", {}, "Metadata"), make("pre", {}, JSON.stringify(g.metadata, null, 2))] : []),
    make("div", { className: "doings" }, ...(FINAL.has(g.state) ? [] : [doing("Ask now", "poll"), doing("Stop tracking", "cancel")])));
  return undefined;
}

function leave(why = "") {
  sessionStorage.removeItem("key");
  key = "";
  stream?.abort();
  opened = null;
  at("detail").close();
  at("room").hidden = at("leave").hidden = true;
  at("door").hidden = false;
  at("refused").textContent = why;
  at("key").focus();
}

async function enter() {
  try {
    await list();
  } catch (wrong) {
    if (wrong instanceof Refused) return leave(wrong.message);
    at("door").hidden = false; // the key may be good: it stays, and the next look tries it again
    at("refused").textContent = wrong.message;
    return undefined;
  }
  sessionStorage.setItem("key", key);
  at("door").hidden = true;
  at("refused").textContent = "";
  at("room").hidden = at("leave").hidden = false;
  watch();
  return attempt(paused);
}

for (const state of STATES) at("states").append(make("label", {}, make("input", { type: "checkbox", name: "state", value: state }), ` ${state.replace("_", " ")}`));
at("door").addEventListener("submit", (event) => { event.preventDefault(); key = at("key").value.trim(); at("key").value = ""; enter(); });
at("filters").addEventListener("submit", (event) => { event.preventDefault(); attempt(list); });
at("states").addEventListener("change", () => attempt(list));
at("more").addEventListener("click", () => attempt(older));
at("leave").addEventListener("click", () => leave());
at("detail").addEventListener("close", () => { opened = null; at("facts").replaceChildren(); });
setInterval(() => {
  health();
  if (document.hidden) return;
  if (!at("room").hidden) attempt(async () => { await freshen(); await paused(); });
  else if (key) enter();
}, LOOK_AGAIN);
health();
if (key) enter(); else leave();

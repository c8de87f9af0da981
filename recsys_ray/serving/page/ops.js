// The service for an operator: one call every few seconds, nothing that changes anything.
import { $, attempt, call, element, submitted } from "./api.js";

const SECONDS = 3;
let before = null;
let paused = false;

const whole = (value) => Math.round(value).toLocaleString("en");
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const duration = (seconds) => seconds < 1 ? `${+(1000 * seconds).toPrecision(2)} ms` : `${+seconds.toPrecision(2)} s`;
const moment = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function lasting(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, size] = units.find(([, least]) => seconds >= least) || units[3];
  return `${Math.floor(seconds / size)} ${unit}`;
}

// The upper bound of the bucket that the quantile lies in.
function quantile(route, share) {
  const total = route.counts.reduce((sum, count) => sum + count, 0);
  let reached = 0;
  for (const [place, count] of route.counts.entries()) {
    reached += count;
    if (total && reached >= share * total) return place < route.seconds.length ? duration(route.seconds[place]) : `over ${duration(route.seconds.at(-1))}`;
  }
  return "";
}

const tag = (text, kind = "") => element("span", { className: `tag ${kind}`, textContent: text });

// A table: the first column names the row; a column is numbers where its head begins with #.
function table(heads, rows, empty) {
  if (!rows.length) return element("p", { className: "quiet", textContent: empty });
  const numeric = heads.map((head) => head.startsWith("#"));
  const head = heads.map((text, place) => element("th", { scope: "col", textContent: text.replace("#", ""), className: numeric[place] ? "number" : "" }));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, place) => {
    const node = element(place ? "td" : "th", { className: numeric[place] ? "number" : "" }, ...[cell].flat());
    if (!place) node.scope = "row";
    return node;
  })));
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  return element("div", { className: "scroll", tabIndex: 0 }, made);
}

function put(id, node) {
  const label = $(id).closest("section").querySelector("h2").textContent;
  if (node.className === "scroll") {
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", label);
  }
  const held = $(id).contains(document.activeElement);
  $(id).replaceChildren(node);
  if (held) node.focus();
}

function tiles(found) {
  const { load } = found;
  const answered = found.routes.reduce((sum, route) => sum + route.requests, 0);
  const errors = found.routes.reduce((sum, route) => sum + route.errors, 0);
  const looked = load.cache_hits + load.cache_misses;
  const now = Date.now();
  const rate = before ? (1000 * Math.max(0, answered - before.answered)) / (now - before.at) : null;
  before = { answered, at: now };
  const rows = [
    ["requests a second", rate === null ? "…" : rate.toFixed(1)], ["requests", whole(answered)], ["errors (5xx)", whole(errors)],
    ["in flight", whole(load.in_flight)], ["refused, overloaded", whole(load.overloads)], ["lists shown", whole(load.answers)],
    ["answers from a cache", looked ? percent(load.cache_hits / looked) : "none yet"],
    ["feedback events", whole(load.feedback)], ["feedback files", whole(load.feedback_files)], ["replicas", whole(found.replicas.length)],
  ];
  if (load.redis_errors) rows.push(["Redis errors", whole(load.redis_errors)]);
  $("tiles").replaceChildren(...rows.map(([text, value]) => element("li", {}, element("b", { textContent: value }), text)));
}

function variants(found) {
  const total = found.variants.reduce((sum, one) => sum + one.weight, 0);
  put("variants", table(["variant", "#share", "run", "model", "published", "state"], found.variants.map((one) => [
    one.variant, percent(one.weight / total), one.run_id || "none", one.model || "", one.published_at ? moment(one.published_at) : "",
    [one.problem ? tag(one.problem, "bad") : tag("answers", "good"), tag(one.follows_latest ? "follows LATEST" : "stays on its run")],
  ]), "No variant."));
}

function effect(found) {
  if (!found.experiment) return put("effect", element("p", { className: "quiet", textContent: found.experiment_note }));
  const interval = (one) => one ? `${one.difference.toFixed(4)} [${one.low.toFixed(4)}, ${one.high.toFixed(4)}]` : "";
  const rows = found.experiment.variants.map((one) => [
    one.variant, whole(one.users), whole(one.judged), whole(one.exposures), one.shown.per_user.toFixed(4), interval(one.shown.effect), one.verdict || "the control"]);
  put("effect", table(["variant", "#users", "#judged", "#exposures", "#outcomes a user", "effect", "verdict"], rows, ""));
}

function chart(runs, metric) {
  const points = runs.filter((run) => metric in run.metrics).reverse();
  if (points.length < 2) return $("chart").replaceChildren(element("p", { className: "quiet", textContent: points.length ? "One measured run; the line begins with the second." : "No run was measured." }));
  const values = points.map((run) => run.metrics[metric]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const place = (value, index) => [20 + (index * 860) / (values.length - 1), high > low ? 130 - (110 * (value - low)) / (high - low) : 75];
  const svg = (name, values) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
    return node;
  };
  const picture = svg("svg", { viewBox: "0 0 900 160", role: "img", "aria-label": `${metric} of ${values.length} runs, from ${values[0].toFixed(4)} to ${values.at(-1).toFixed(4)}` });
  picture.append(svg("polyline", { points: values.map((value, index) => place(value, index).join(",")).join(" ") }));
  values.forEach((value, index) => {
    const [x, y] = place(value, index);
    const dot = svg("circle", { cx: x, cy: y, r: 5, ...(points[index].withdrawn ? { class: "withdrawn" } : {}) });
    const title = svg("title", {});
    title.textContent = `${points[index].run_id}: ${value.toFixed(4)}`;
    dot.append(title);
    picture.append(dot);
  });
  for (const [value, index] of [[values[0], 0], [values.at(-1), values.length - 1]]) {
    const [x, y] = place(value, index);
    const text = svg("text", { x, y: y - 10, "text-anchor": index ? "end" : "start" });
    text.textContent = value.toFixed(4);
    picture.append(text);
  }
  $("chart").replaceChildren(picture);
}

function runs(found) {
  const names = [...new Set(found.runs.flatMap((run) => Object.keys(run.metrics)))].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  const select = $("metric");
  if (names.join() !== [...select.options].map((option) => option.value).join()) {
    const chosen = select.value || names.filter((name) => name.startsWith("ndcg@")).at(-1) || names[0];
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    select.value = chosen;
  }
  const metric = select.value;
  chart(found.runs, metric);
  const share = (run, check) => run.checks[check] == null ? "" : percent(run.checks[check]);
  put("runs", table(["run", "published", "model", `#${metric}`, "#coverage", "#fallback", "#overlap", "state"], found.runs.map((run) => [
    run.run_id, moment(run.published_at), run.model, metric in run.metrics ? run.metrics[metric].toFixed(4) : "", share(run, "coverage"), share(run, "fallback_share"), share(run, "overlap"),
    [run.latest ? tag("LATEST", "good") : "", run.withdrawn ? tag("withdrawn", "bad") : "", ...run.answers_for.map((name) => tag(`answers for ${name}`))],
  ]), "No run is published."));
}

function rest(found) {
  put("routes", table(["route", "#requests", "#errors", "#median", "#95 %", "#99 %"], found.routes.map((route) => [
    route.route, whole(route.requests), whole(route.errors), quantile(route, 0.5), quantile(route, 0.95), quantile(route, 0.99)]), "Nothing was asked yet."));
  put("replicas", table(["replica", "#up for", "#answers kept", "#MiB", "#found there", "runs"], found.replicas.map((one) => [
    one.replica, lasting(one.uptime_seconds), whole(one.cache.entries), (one.cache.bytes / 2 ** 20).toFixed(2), percent(one.cache.hit_rate),
    one.variants.map((held) => `${held.variant}: ${held.run_id}`).join(", ")]), ""));
  const lists = [...Object.entries(found.load.by_variant).map(([name, count]) => [`variant ${name}`, whole(count)]),
    ...Object.entries(found.load.by_source).map(([name, count]) => [`listed by ${name}`, whole(count)])];
  put("shown", table(["lists", "#number"], lists, "No list was shown yet."));
}

let last = null;

async function refresh() {
  last = await call("/v1/overview");
  $("key-form").hidden = true;
  $("all").hidden = false;
  $("fresh").textContent = `${last.name} ${last.version} · as of ${new Date(last.at).toLocaleTimeString("en-GB")} · every ${SECONDS} seconds`;
  for (const part of [tiles, variants, effect, runs, rest]) part(last);
}

submitted("key-form", () => {
  sessionStorage.setItem("key", $("key").value);
  return refresh();
});
$("metric").addEventListener("change", () => runs(last));
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
});
attempt(refresh);
setInterval(() => {
  if (!paused && last && !document.hidden) attempt(refresh);
}, 1000 * SECONDS);

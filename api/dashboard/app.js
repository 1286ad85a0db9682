// The dashboard. Whatever the service says is put in with textContent, so nothing of it can become markup.
"use strict";

const KEY = "warploom.key";
const POLL_MS = 2500;
const KEPT_EVENTS = 20000, SHOWN_EVENTS = 200;
const TONE = {
  queued: "wait", running: "busy", pausing: "wait", paused: "wait", cancelling: "wait", succeeded: "good", failed: "bad",
  cancelled: "wait",
};
const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const at = (id) => document.getElementById(id);
let chosen = null;
let following = null;
let timer = 0;

function make(name, options = {}, ...children) {
  const node = Object.assign(document.createElement(name), options);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const badge = (text, tone) => make("span", { className: `badge ${tone || ""}`, textContent: text });
const number = (value) => (Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "–");
const percent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(1)} %` : "–");

function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

function bytes(count) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (count < 1024 || unit === "GiB") return `${unit === "B" ? count : count.toFixed(1)} ${unit}`;
    count /= 1024;
  }
}

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}`, ...(options.headers || {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) throw new Refused("The service does not know this key.");
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail || `HTTP ${answer.status}`);
  return answer;
}

// ---------------------------------------------------------------- jobs

function lastLoss(job) {
  const metrics = job.progress.metrics || {};
  return metrics.query_loss ?? metrics.support_loss ?? metrics.loss;
}

function jobRow(job) {
  const done = job.progress.meta_step, total = job.progress.total || job.spec.training?.rounds || 0;
  const bar = make("progress", { max: Math.max(total, 1), value: job.state === "succeeded" ? Math.max(total, 1) : done });
  bar.setAttribute("aria-label", `round ${done} of ${total}`);
  const name = job.name && job.name !== job.id ? make("span", { className: "sub", textContent: job.name }) : null;
  const phase = !FINAL.has(job.state) && job.phase ? make("span", { className: "sub", textContent: job.phase }) : null;
  const cells = [
    [make("span", { className: "id", textContent: job.id }), name],
    [badge(job.state, TONE[job.state]), phase],
    [job.spec.algorithm?.name ?? "–"],
    [job.spec.task?.name ?? "–"],
    [make("div", { className: "bar" }, bar, make("span", { textContent: `${done} / ${total}` }))],
    [number(lastLoss(job))],
    [heldOut(job.progress.metrics)],
    [FINAL.has(job.state) ? "–" : span(job.progress.seconds_remaining)],
    [`${span(Date.now() / 1000 - job.created_at)} ago`],
  ];
  const row = make("tr", { tabIndex: 0, className: job.id === chosen ? "chosen" : "" });
  row.append(...cells.map((parts, i) => make("td", { className: i > 4 ? "num" : "" }, ...parts)));
  row.onclick = () => choose(job.id);
  row.onkeydown = (event) => { if (event.key === "Enter") choose(job.id); };
  return row;
}

function fill(table, rows) {
  const focused = [...table.tBodies[0].rows].indexOf(document.activeElement);
  table.tBodies[0].replaceChildren(...rows);
  if (focused >= 0) table.tBodies[0].rows[focused]?.focus();
  table.hidden = !rows.length;
  table.closest("section").querySelector(".none").hidden = rows.length > 0;
}

function showDetail(job) {
  at("detail-id").textContent = job.name && job.name !== job.id ? `${job.name} · ${job.id}` : job.id;
  at("detail-state").replaceChildren(badge(job.state, TONE[job.state]));
  at("detail-error").hidden = !job.error;
  at("detail-error").textContent = job.error ? `${job.error.code}: ${job.error.message}` : "";
}

function choose(id) {
  chosen = id;
  at("detail").hidden = false;
  following?.abort();
  following = new AbortController();
  follow(id, following.signal).catch(() => {});
  refresh();
}

// -------------------------------------------------------------- events

async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

async function follow(id, signal) {
  const events = [];
  let last = "", due = false;
  const draw = () => { due = false; if (!signal.aborted) drawEvents(events); };
  draw();
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const answer = await ask(`/v1/jobs/${encodeURIComponent(id)}/events`, { headers, signal });
      for await (const event of frames(answer.body)) {
        last = event.id;
        events.push(event);
        if (events.length > KEPT_EVENTS) events.splice(0, events.length - KEPT_EVENTS);
        if (!due) { due = true; setTimeout(draw, 100); }
        if (event.kind === "state" && FINAL.has(event.data.state)) { refresh(); return; }
      }
    } catch (error) {
      if (signal.aborted || error instanceof Refused) return;
    }
    await new Promise((resume) => setTimeout(resume, 2000));
    if (signal.aborted) return;
  }
}

function drawEvents(events) {
  const rounds = events.filter((event) => event.kind === "round").map((event) => event.data);
  const held = events.filter((event) => event.kind === "evaluation").map((event) => event.data);
  const byAccuracy = held.some((data) => Number.isFinite(data.accuracy));
  drawChart(at("chart-loss"), rounds.map((d) => ({ x: d.meta_step, y: d.query_loss ?? d.support_loss })), number);
  at("chart-name").textContent = `Held-out ${byAccuracy || !held.length ? "accuracy" : "loss"}, 95 % interval`;
  if (byAccuracy) {
    const points = held.map((d) => ({ x: d.meta_step, y: d.accuracy, ci: d.accuracy_ci95 }));
    drawChart(at("chart-held"), points, (y) => `${Math.round(1000 * y) / 10} %`, [0, 1]);
  } else {
    drawChart(at("chart-held"), held.map((d) => ({ x: d.meta_step, y: d.loss, ci: d.loss_ci95 })), number);
  }
  at("log").replaceChildren(...events.slice(-SHOWN_EVENTS).reverse().map((event) => {
    const facts = Object.entries(event.data).map(([key, value]) => {
      return `${key} ${typeof value === "number" ? number(value) : typeof value === "object" ? JSON.stringify(value) : value}`;
    });
    const time = new Date(event.at * 1000).toLocaleTimeString();
    return make("li", {}, time, make("b", { textContent: event.kind }), facts.join("  "));
  }));
}

// -------------------------------------------------------------- models

function heldOut(metrics) {
  return Number.isFinite(metrics?.accuracy) ? percent(metrics.accuracy) : number(metrics?.loss);
}

function modelRow(model) {
  const cells = [
    make("span", { className: "id", textContent: model.name }), String(model.version), model.kind,
    model.input_shape.join(" × "), String(model.outputs), model.parameters.toLocaleString("en"), bytes(model.bytes),
    heldOut(model.metrics),
    `${span(Date.now() / 1000 - model.created_at)} ago`,
  ];
  const left = new Set([0, 2, 3]);
  return make("tr", {}, ...cells.map((cell, i) => make("td", { className: left.has(i) ? "" : "num" }, cell)));
}

// -------------------------------------------------------------- health

async function health() {
  let parts = {};
  try {
    parts = (await (await fetch("/readyz")).json()).parts || {};
  } catch {
    at("health").replaceChildren(make("li", {}, badge("API does not answer", "bad")));
    return;
  }
  const shown = Object.entries(parts).map(([name, value]) => {
    const good = value === "up" || value > 0;
    const text = name.replace("_", " ") + (typeof value === "number" && value !== 1 ? ` ${value}` : "");
    return make("li", { title: `${name}: ${value}` }, badge(text, good ? "good" : "bad"));
  });
  at("health").replaceChildren(...shown);
}

// ---------------------------------------------------------------- page

async function refresh() {
  clearTimeout(timer);
  const known = Boolean(sessionStorage.getItem(KEY));
  at("login").hidden = known;
  at("content").hidden = at("leave").hidden = !known;
  health();
  if (known) {
    try {
      const [jobs, models] = await Promise.all(["/v1/jobs?limit=50", "/v1/models"].map(async (path) => (await ask(path)).json()));
      fill(at("jobs"), jobs.data.map(jobRow));
      fill(at("models"), models.data.map(modelRow));
      const job = jobs.data.find((one) => one.id === chosen);
      if (job) showDetail(job);
      else if (!chosen && jobs.data.length) choose((jobs.data.find((one) => one.state === "running") || jobs.data[0]).id);
      at("trouble").hidden = true;
    } catch (error) {
      if (error instanceof Refused) { leave(error.message); return; }
      at("trouble").textContent = error.message;
      at("trouble").hidden = false;
    }
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, POLL_MS);
}

function leave(reason = "") {
  sessionStorage.removeItem(KEY);
  following?.abort();
  chosen = null;
  at("detail").hidden = true;
  at("refused").textContent = reason;
  at("refused").hidden = !reason;
  refresh();
}

at("login").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("key").value.trim());
  at("key").value = "";
  at("refused").hidden = true;
  refresh();
};
at("leave").onclick = () => leave();

// A link may carry the key behind '#', which browsers do not send to servers.
const carried = new URLSearchParams(location.hash.slice(1)).get("key");
if (carried) {
  sessionStorage.setItem(KEY, carried);
  history.replaceState(null, "", location.pathname);
}
refresh();

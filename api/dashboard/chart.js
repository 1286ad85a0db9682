// Line charts in SVG. Text goes in as text, never as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 560, height: 210, left: 46, right: 12, top: 10, bottom: 26 };

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function ticks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * ([1, 2, 5, 10].find((n) => n * unit >= raw) || 10);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return found;
}

function bounds(values) {
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) { const pad = Math.abs(low) * 0.1 || 0.5; low -= pad; high += pad; }
  return [low, high];
}

function thinned(points, most) {
  // Means of equal groups: a job may have millions of rounds, a screen has not.
  const size = Math.ceil(points.length / most);
  if (size <= 1) return points;
  const groups = [];
  for (let i = 0; i < points.length; i += size) {
    const group = points.slice(i, i + size);
    groups.push({ x: group[group.length - 1].x, y: group.reduce((sum, p) => sum + p.y, 0) / group.length });
  }
  return groups;
}

// Draws points {x, y, ci?} into `host`; `show` writes a y value; no value leaves `limits` = [least, most].
function drawChart(host, all, show, limits) {
  const [least, most] = limits || [-Infinity, Infinity];
  const points = thinned(all.filter((p) => Number.isFinite(p.x) && Number.isFinite(p.y)), 400);
  const low = (p) => Math.max(least, p.y - (p.ci || 0)), high = (p) => Math.min(most, p.y + (p.ci || 0));
  host.replaceChildren();
  const svg = shape("svg", { class: "chart", viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img" });
  host.append(svg);
  if (!points.length) {
    svg.append(shape("text", { x: BOX.width / 2, y: BOX.height / 2, "text-anchor": "middle" }, "no values yet"));
    return;
  }
  let [x0, x1] = bounds(points.map((p) => p.x));
  x0 = Math.max(0, x0);
  let [y0, y1] = bounds(points.flatMap((p) => [low(p), high(p)]));
  const pad = (y1 - y0) * 0.06;
  y0 -= pad; y1 += pad;
  const px = (x) => BOX.left + ((x - x0) / (x1 - x0)) * (BOX.width - BOX.left - BOX.right);
  const py = (y) => BOX.height - BOX.bottom - ((y - y0) / (y1 - y0)) * (BOX.height - BOX.top - BOX.bottom);
  for (const y of ticks(y0, y1, 6)) {
    svg.append(shape("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: py(y), y2: py(y) }));
    svg.append(shape("text", { x: BOX.left - 7, y: py(y) + 4, "text-anchor": "end" }, show(y)));
  }
  for (const x of ticks(x0, x1, 6).filter(Number.isInteger)) {
    svg.append(shape("text", { x: px(x), y: BOX.height - 8, "text-anchor": "middle" }, String(x)));
  }
  if (points.some((p) => p.ci)) {
    const up = points.map((p) => `${px(p.x)},${py(high(p))}`);
    const down = points.map((p) => `${px(p.x)},${py(low(p))}`).reverse();
    svg.append(shape("polygon", { class: "band", points: [...up, ...down].join(" ") }));
  }
  svg.append(shape("polyline", { class: "curve", points: points.map((p) => `${px(p.x)},${py(p.y)}`).join(" ") }));
  if (points.length <= 40) {
    for (const p of points) svg.append(shape("circle", { class: "dot", cx: px(p.x), cy: py(p.y), r: 3 }));
  }
}

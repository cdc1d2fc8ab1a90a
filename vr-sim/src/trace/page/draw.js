// Draws what is in the window, and nothing else.
const stage = document.getElementById("stage"), overview = document.getElementById("overview");
const LEFT = 64, BAND = 30, ARROWS_MAX = 3000;
const sight = { from: begin, to: end };
let arrows = [], hovered = null, size = { width: 1, height: 1 };
const dark = matchMedia("(prefers-color-scheme: dark)");
const ink = (name) => dark.matches
  ? { text: "#e4e8f0", dim: "#98a2b3", line: "#343b48", down: "#262b34", bad: "#ff6b7d", ground: "#1c2027" }[name]
  : { text: "#1d2433", dim: "#667085", line: "#d5dae3", down: "#e3e6ec", bad: "#c4253a", ground: "#fff" }[name];
const viewColour = (view, strong) => {
  const hue = (205 + view * 137.508) % 360;
  return dark.matches ? `hsl(${hue} 45% ${strong ? 38 : 22}%)` : `hsl(${hue} ${strong ? 75 : 60}% ${strong ? 70 : 90}%)`;
};
const x = (at) => LEFT + (at - sight.from) / (sight.to - sight.from) * (size.width - LEFT - 12);
const timeAt = (px) => sight.from + (px - LEFT) / (size.width - LEFT - 12) * (sight.to - sight.from);
const y = (index) => 40 + (size.height - 80) * (index + .5) / data.actors.length;
function prepared(canvas) {
  const box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  canvas.width = Math.round(box.width * ratio); canvas.height = Math.round(box.height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle";
  return [pen, box];
}
function hatch(pen, left, top, width, height, colour) {
  pen.save(); pen.beginPath(); pen.rect(left, top, width, height); pen.clip();
  pen.strokeStyle = colour; pen.lineWidth = 2; pen.beginPath();
  for (let at = Math.floor((left - height) / 9) * 9; at < left + width; at += 9) { pen.moveTo(at, top + height); pen.lineTo(at + height, top); }
  pen.stroke(); pen.restore();
}
function drawBands(pen) {
  for (const [who, list] of spans) for (let before = "", i = 0; i < list.length; i++) {
    const span = list[i];
    if (span.until < sight.from || span.at > sight.to) continue;
    const left = Math.max(LEFT, x(span.at)), width = Math.min(size.width - 12, x(span.until)) - left, top = y(who) - BAND / 2;
    if (width <= 0) continue;
    const normal = span.up && span.status === "Normal", leads = normal && primaryOf(span.view) === who;
    pen.fillStyle = !span.up || span.view === undefined ? ink("down") : viewColour(span.view, leads);
    pen.fillRect(left, top, width + .5, BAND);
    if (span.up && !normal) hatch(pen, left, top, width, BAND, ink("dim"));
    if (span.paused) hatch(pen, left, top + BAND / 3, width, BAND / 3, ink("text"));
    if (leads) { pen.fillStyle = ink("text"); pen.fillRect(left, top, width, 2); }
    const state = !span.up ? "down" : span.paused ? "paused" : normal ? (leads ? "primary" : "") : span.status.replace("ViewChange", "view change").toLowerCase();
    const short = [span.up && span.view !== undefined ? `v${span.view}` : "", state].filter(Boolean).join(" ");
    const label = normal ? `${short}  op ${span.op} c ${span.commit} a ${span.applied}` : short;
    // The numbers where there is room; view and status where they change.
    for (const text of short === before ? [label] : [label, short]) {
      const wide = pen.measureText(text).width;
      if (wide + 8 >= width) continue;
      if (!normal || span.paused) { pen.fillStyle = ink("ground"); pen.fillRect(left + 3, top + 6, wide + 4, BAND - 12); }
      pen.fillStyle = ink("text"); pen.fillText(text, left + 5, top + BAND / 2 + 1);
      before = short;
      break;
    }
  }
}
function endsOf(m) {
  const down = y(m.to) > y(m.from) ? 1 : -1;
  return { x1: x(m.sent), y1: y(m.from) + down * BAND / 2, x2: x(m.until), y2: y(m.to) - down * BAND / 2 };
}
function drawArrow(pen, m, strong) {
  let { x1, y1, x2, y2 } = endsOf(m);
  const cross = m.lost, open = m.ended === null && m.held === null;
  if (cross || open) { x2 = x1 + Math.max(x2 - x1, 8) * .6; y2 = y1 + (y2 - y1) * .45; }
  pen.strokeStyle = pen.fillStyle = cross ? ink("bad") : colourOf[m.kind] ?? ink("dim");
  pen.lineWidth = strong ? 3 : 1.3;
  pen.setLineDash(m.held !== null ? [6, 4] : m.copy ? [2, 3] : []);
  pen.beginPath(); pen.moveTo(x1, y1); pen.lineTo(x2, y2); pen.stroke(); pen.setLineDash([]);
  if (cross) { pen.beginPath(); pen.moveTo(x2 - 4, y2 - 4); pen.lineTo(x2 + 4, y2 + 4); pen.moveTo(x2 + 4, y2 - 4); pen.lineTo(x2 - 4, y2 + 4); pen.stroke(); }
  else {
    const angle = Math.atan2(y2 - y1, x2 - x1);
    pen.beginPath(); pen.moveTo(x2, y2);
    for (const side of [-.35, .35]) pen.lineTo(x2 - 8 * Math.cos(angle + side), y2 - 8 * Math.sin(angle + side));
    pen.fill();
  }
  return { m, x1, y1, x2, y2 };
}
// Of many arrows that would lie on each other, one.
function thinned(list) {
  if (list.length <= ARROWS_MAX) return list;
  const seen = new Set();
  return list.filter((m) => {
    const key = `${m.from},${m.to},${Math.round(x(m.sent) / 3)},${colourOf[m.kind]},${m.lost ? 1 : 0}`;
    return !seen.has(key) && seen.add(key);
  });
}
const SIGNS = { crashed: "\u2715", started: "\u25b6", wiped: "\u2300", paused: "\u2016", resumed: "\u00bb", stopped: "\u25a0", stalled: "\u25a5", unstalled: "\u25a1",
  cut: "\u2702", mended: "\u2013", clogged: "\u22ef", partition: "\u2702", healed: "\u2661", disk: "\u26c1", violated: "!", failed: "!", note: "\u2022" };
const LOUD = new Set(["violated", "failed", "partition", "healed"]);
let shownMarks = [];
function drawMarks(pen) {
  shownMarks = [];
  for (let i = firstPlace(marks, (m) => m.at >= sight.from); i < marks.length && marks[i].at <= sight.to; i++) {
    const m = marks[i], at = x(m.at);
    if (m.type === "applied" && m.one >= 0) { pen.fillStyle = ink("text"); pen.fillRect(at - .5, y(m.one) + BAND / 2 - 5, 1.5, 5); continue; }
    if (!SIGNS[m.type]) continue;
    const bad = m.type === "violated" || m.type === "failed";
    if (LOUD.has(m.type)) {
      pen.strokeStyle = bad ? ink("bad") : ink("dim"); pen.lineWidth = bad ? 2 : 1; pen.setLineDash(bad ? [] : [3, 3]);
      pen.beginPath(); pen.moveTo(at, 18); pen.lineTo(at, size.height - 24); pen.stroke(); pen.setLineDash([]);
    }
    const row = m.one < 0 || m.type === "cut" || m.type === "mended" || m.type === "clogged" ? 12 : y(m.one) - BAND / 2 - 9;
    pen.fillStyle = bad || m.type === "crashed" || m.type === "stopped" || m.type === "disk" || m.type === "cut" ? ink("bad") : ink("text");
    pen.textAlign = "center"; pen.font = "bold 14px system-ui, sans-serif"; pen.fillText(SIGNS[m.type], at, row);
    pen.textAlign = "left"; pen.font = "12px system-ui, sans-serif";
    shownMarks.push({ m, x: at, y: row });
  }
}
function drawAxis(pen) {
  const span = sight.to - sight.from, raw = span / 8, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= raw);
  pen.fillStyle = ink("dim"); pen.strokeStyle = ink("line"); pen.lineWidth = 1; pen.textAlign = "center";
  for (let at = Math.ceil(sight.from / step) * step; at <= sight.to; at += step) {
    pen.beginPath(); pen.moveTo(x(at), 24); pen.lineTo(x(at), size.height - 22); pen.stroke();
    pen.fillText(step >= 1e7 ? `${(at / 1e9).toFixed(2)} s` : `${(at / 1e6).toFixed(step >= 1e6 ? 0 : 2)} ms`, x(at), size.height - 11);
  }
  pen.textAlign = "left";
}
function drawOverview() {
  const [pen, box] = prepared(overview), scale = (at) => (at - begin) / (end - begin) * box.width;
  const counts = new Array(Math.ceil(box.width) + 1).fill(0);
  for (const m of matching) counts[Math.floor(scale(m.sent))]++;
  const most = Math.max(1, ...counts);
  pen.fillStyle = "#3b7dea";
  counts.forEach((count, at) => { const height = Math.sqrt(count / most) * 34; pen.fillRect(at, 42 - height, 1, height); });
  pen.fillStyle = ink("bad");
  for (const m of marks) if (m.type === "crashed" || m.type === "violated" || m.type === "failed") pen.fillRect(scale(m.at), 0, m.type === "crashed" ? 1 : 3, m.type === "crashed" ? 8 : 42);
  pen.strokeStyle = ink("text"); pen.lineWidth = 2; pen.fillStyle = "#8886";
  const left = scale(sight.from), width = Math.max(3, scale(sight.to) - left);
  pen.fillRect(left, 0, width, 42); pen.strokeRect(left, 1, width, 40);
}
function draw() {
  const [pen, box] = prepared(stage);
  size = box;
  drawAxis(pen);
  pen.font = "bold 13px system-ui, sans-serif";
  data.actors.forEach((name, index) => {
    pen.strokeStyle = ink("line"); pen.beginPath(); pen.moveTo(LEFT, y(index)); pen.lineTo(box.width - 12, y(index)); pen.stroke();
    pen.fillStyle = ink("text"); pen.fillText(name, 20, y(index));
  });
  pen.font = "12px system-ui, sans-serif";
  drawBands(pen);
  const inside = between(sight.from, sight.to), drawn = thinned(inside);
  pen.save(); pen.beginPath(); pen.rect(LEFT, 0, box.width - LEFT, box.height); pen.clip();
  pen.globalAlpha = drawn.length > 600 ? .45 : .9;
  arrows = drawn.map((m) => drawArrow(pen, m, false));
  pen.globalAlpha = 1;
  if (hovered?.kind) drawArrow(pen, hovered, true);
  drawMarks(pen);
  pen.restore();
  drawOverview();
  return { inside: inside.length, drawn: drawn.length };
}

"use strict";
// Draws the page from the one trace in #data. Whatever comes from a text or a model goes through textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const count = data.tokens.length;
const state = { token: count - 1, layer: 0, head: 0 };

function make(tag, text, properties) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  return element;
}
const control = (c) => "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0");
const visible = (text) =>
  text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/[\x00-\x1f\x7f-\x9f]/g, control) || "∅";
const token = (i) => visible(data.tokens[i].text);
const percent = (p) => (p > 0 && p < 0.0005 ? "<0.1" : (100 * p).toFixed(1)) + " %";
const colour = (name, alpha) => `rgba(${getComputedStyle(document.documentElement).getPropertyValue(name)}, ${alpha})`;
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function choose(change) {
  Object.assign(state, change);
  for (const element of document.querySelectorAll(".chosen")) element.textContent = token(state.token);
  drawTokens(); drawStrips(); drawAttention(); drawNorms(); drawLens(); drawNext();
}

// ------------------------------------------------------------ tokens
function buildTokens() {
  data.tokens.forEach((piece, i) => {
    const button = make("button", undefined, { type: "button", className: `p${i % 4}` });
    button.append(make("span", visible(piece.text)), make("small", piece.id));
    button.setAttribute("aria-label", `token ${i + 1}: ${piece.text}, id ${piece.id}`);
    button.onclick = () => choose({ token: i });
    $("text").append(button);
  });
  $("text").onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose({ token: Math.min(count - 1, Math.max(0, state.token + step)) });
    $("text").children[state.token].focus();
  };
}
function drawTokens() {
  [...$("text").children].forEach((button, i) => {
    button.setAttribute("aria-pressed", i === state.token);
    button.tabIndex = i === state.token ? 0 : -1;
  });
}

// ------------------------------------------------------------ token + position = input
const STRIPS = [["token_embedding", "token vector"], ["position_embedding", "+ position vector"], ["input", "= input"]]
  .filter(([name]) => data.input[name]); // rotary positions have no vector
function drawStrips() {
  const rows = STRIPS.map(([name]) => data.input[name][state.token]);
  const largest = Math.max(...rows.flat().map(Math.abs), 1e-9);
  $("strips").replaceChildren(...rows.flatMap((row, i) => {
    const canvas = make("canvas", undefined, { width: row.length, height: 1 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${STRIPS[i][1]}: ${row.length} numbers`);
    const context = canvas.getContext("2d");
    row.forEach((value, x) => {
      context.fillStyle = colour(value < 0 ? "--warm" : "--accent", Math.abs(value) / largest);
      context.fillRect(x, 0, 1, 1);
    });
    return [make("span", STRIPS[i][1], { className: "small" }), canvas];
  }));
  const first = rows.map((row) => row[0].toFixed(4));
  const sum = `${first.slice(0, -1).join(" + ")} = ${first.at(-1)}`.replaceAll("-", "−");
  $("sum").textContent = `The first of the ${rows[0].length} numbers: ${sum}`;
}

// ------------------------------------------------------------ attention
function paint(canvas, weights, cell) {
  canvas.width = canvas.height = count * cell;
  const context = canvas.getContext("2d");
  weights.forEach((row, y) => row.forEach((weight, x) => {
    if (x > y) return;
    context.fillStyle = colour("--accent", 0.04 + 0.96 * Math.sqrt(weight));
    context.fillRect(x * cell, y * cell, cell, cell);
  }));
}
function buildAttention() {
  const pick = (where, name, key, total) => {
    where.append(make("span", name));
    for (let i = 0; i < total; i++) {
      const button = make("button", i + 1, { type: "button", onclick: () => choose({ [key]: i }) });
      button.setAttribute("aria-label", `${key} ${i + 1}`);
      where.append(button);
    }
  };
  pick($("layers"), "Layer", "layer", data.layers);
  pick($("headrow"), "Head", "head", data.heads);
  $("heads").style.setProperty("--heads", data.heads);
  data.attention.forEach((heads, layer) => heads.forEach((weights, head) => {
    const button = make("button", undefined, { type: "button", onclick: () => choose({ layer, head }) });
    button.setAttribute("aria-label", `layer ${layer + 1}, head ${head + 1}`);
    const canvas = make("canvas");
    button.append(canvas, `${layer + 1}.${head + 1}`);
    $("heads").append(button);
  }));
  data.tokens.forEach((_, i) => $("looks").append(make("span", token(i), { onmouseenter: () => choose({ token: i }) })));
  $("heat").onmousemove = (event) => {
    const [x, y] = cellAt(event);
    if (y >= 0 && y < count && x >= 0 && x <= y) say(y, x);
  };
  $("heat").onmouseleave = () => say(state.token);
  $("heat").onclick = (event) => {
    const y = cellAt(event)[1];
    if (y >= 0 && y < count) choose({ token: y });
  };
}
function paintHeads() {
  [...$("heads").children].forEach((button, i) => {
    paint(button.firstChild, data.attention[Math.floor(i / data.heads)][i % data.heads], count > 48 ? 1 : 2);
  });
}
const heat = { cell: 0, left: 0, top: 0 };
const cellAt = (event) => [(event.offsetX - heat.left) / heat.cell, (event.offsetY - heat.top) / heat.cell].map(Math.floor);

function say(from, to) {
  const weights = data.attention[state.layer][state.head][from];
  const where = `Layer ${state.layer + 1}, head ${state.head + 1}: “${token(from)}” looks at `;
  const order = to === undefined ? weights.map((_, i) => i).slice(0, from + 1).sort((a, b) => weights[b] - weights[a]).slice(0, 4) : [to];
  $("says").textContent = where + order.map((i) => `“${token(i)}” ${percent(weights[i])}`).join(", ");
}
function drawAttention() {
  const weights = data.attention[state.layer][state.head];
  for (const [id, chosen] of [["layers", state.layer], ["headrow", state.head]])
    [...$(id).querySelectorAll("button")].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
  [...$("heads").children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.layer * data.heads + state.head));
  [...$("looks").children].forEach((span, i) => {
    span.className = i === state.token ? "from" : i > state.token ? "later" : "";
    span.style.background = i > state.token ? "" : colour("--accent", 0.55 * Math.sqrt(weights[state.token][i]));
  });
  say(state.token);
  drawHeat(weights);
}
function drawHeat(weights) {
  const canvas = $("heat"), context = canvas.getContext("2d"), scale = window.devicePixelRatio || 1;
  const size = count > 60 ? 10 : 12, font = `${size}px ${ink("--mono")}`;
  context.font = font;
  const labels = data.tokens.map((_, i) => (token(i).length > 11 ? token(i).slice(0, 10) + "…" : token(i)));
  const room = Math.ceil(Math.max(...labels.map((label) => context.measureText(label).width))) + 8;
  const width = Math.min(canvas.parentElement.clientWidth, 640);
  heat.cell = Math.max(size + 1, Math.min(34, Math.floor((width - room) / count)));
  heat.left = heat.top = room;
  const side = room + heat.cell * count + 2;
  canvas.width = canvas.height = side * scale;
  canvas.style.width = canvas.style.height = side + "px";
  canvas.setAttribute("aria-label", `Weights of layer ${state.layer + 1}, head ${state.head + 1}`);
  context.scale(scale, scale);
  context.font = font;
  context.textBaseline = "middle";
  labels.forEach((label, i) => {
    const middle = room + (i + 0.5) * heat.cell;
    context.fillStyle = ink(i === state.token ? "--ink" : "--soft");
    context.textAlign = "right";
    context.fillText(label, room - 6, middle);
    context.save();
    context.translate(middle, room - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(label, 0, 0);
    context.restore();
  });
  weights.forEach((row, y) => row.forEach((weight, x) => {
    if (x > y) return;
    context.fillStyle = colour("--accent", 0.05 + 0.95 * Math.sqrt(weight));
    context.fillRect(room + x * heat.cell, room + y * heat.cell, heat.cell - 1, heat.cell - 1);
  }));
  context.strokeStyle = ink("--ink");
  context.strokeRect(room - 0.5, room + state.token * heat.cell - 0.5, (state.token + 1) * heat.cell, heat.cell);
}

// ------------------------------------------------------------ norms
function bar(share) {
  const box = make("div", undefined, { className: "bar" });
  const filled = make("i");
  filled.style.width = `${100 * share}%`;
  box.append(filled);
  return box;
}
function cell(content, className) {
  const element = make("td", undefined, className ? { className } : {});
  element.append(content);
  return element;
}
function drawNorms() {
  const stages = [["input", "input", null]];
  for (let layer = 0; layer < data.layers; layer++) {
    const at = `blocks.${layer}.`;
    stages.push([`layer ${layer + 1}, attention`, at + "residual_mid", at + "attention.output"]);
    stages.push([`layer ${layer + 1}, feed-forward`, at + "residual_out", at + "feed_forward.output"]);
  }
  const of = (name) => (name ? data.norms[name][state.token] : 0);
  const largest = Math.max(...stages.flatMap(([, stream, added]) => [of(stream), of(added)]), 1e-9);
  $("norms").tBodies[0].replaceChildren(...stages.map(([name, stream, added]) => {
    const row = make("tr");
    const head = make("th", name, { scope: "row" });
    head.style.whiteSpace = "nowrap";
    row.append(head, cell(bar(of(stream) / largest)), cell(of(stream).toFixed(2), "n"));
    row.append(added ? cell(bar(of(added) / largest)) : make("td"), cell(added ? of(added).toFixed(2) : "", "n"));
    return row;
  }));
}

// ------------------------------------------------------------ logit lens
function buildLens() {
  const head = make("tr");
  head.append(make("th", "after", { scope: "col" }), ...data.tokens.map((_, i) => make("th", token(i), { scope: "col" })));
  $("lens").tHead.append(head);
  Object.values(data.lens).forEach((words, layer) => {
    const row = make("tr");
    row.append(make("th", layer ? `layer ${layer}` : "input", { scope: "row" }));
    words.forEach((word, i) => {
      const box = make("td", undefined, { onclick: () => choose({ token: i }) });
      box.append(make("span", visible(word.text)), make("small", percent(word.probability)));
      box.style.background = `rgba(var(--accent), ${0.05 + 0.4 * word.probability})`;
      row.append(box);
    });
    $("lens").tBodies[0].append(row);
  });
}
function drawLens() {
  for (const row of $("lens").tBodies[0].rows)
    [...row.cells].forEach((box, i) => box.classList.toggle("here", i === state.token + 1));
}

// ------------------------------------------------------------ next token
function drawNext() {
  const words = data.next[state.token];
  $("mass").textContent = percent(words.reduce((sum, word) => sum + word.probability, 0));
  $("next").tBodies[0].replaceChildren(...words.map((word) => {
    const row = make("tr");
    row.append(make("td", visible(word.text)), cell(word.id, "n"), cell(word.logit.toFixed(3).replace("-", "−"), "n"));
    row.append(cell(percent(word.probability), "n"), cell(bar(word.probability)));
    return row;
  }));
}

buildTokens(); buildAttention(); buildLens(); paintHeads(); choose({});
let waiting = 0;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAttention, 100); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paintHeads(); choose({}); });

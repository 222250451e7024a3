// The page of one sentence that `pellucid see` writes: draws the one trace in #data, and asks nobody for anything.
import { $, bar, choices, colour, make, mark, number, percent, roving, table, visible } from "./dom.js";
import { heat, largest, small, strips, weightPaint } from "./draw.js";

const data = JSON.parse($("data").textContent);
const count = data.tokens.length, last = (list) => list[list.length - 1];
const state = { token: count - 1, layer: 0, head: 0 };
const names = data.tokens.map(({ text }) => visible(text));
const numbers = (many) => Array.from({ length: many }, (_, n) => n + 1);

function choose(change) {
  Object.assign(state, change);
  for (const element of document.querySelectorAll(".chosen")) element.textContent = names[state.token];
  mark([...$("text").children], state.token);
  drawStrips(); drawAttention(); drawNorms(); drawNext();
  lens.querySelectorAll("tbody tr").forEach((row) => [...row.cells].forEach((cell, i) => cell.classList.toggle("here", i === state.token + 1)));
}

// ------------------------------------------------------------ tokens, and token + position = input
function buildTokens() {
  $("text").append(...data.tokens.map((piece, i) => make("button", { type: "button", className: `p${i % 4}`, "data-item": "",
    "aria-label": `token ${i + 1}: ${piece.text}, id ${piece.id}`, onclick: () => choose({ token: i }) },
    make("span", {}, names[i]), make("small", {}, String(piece.id)))));
  roving($("text"), (i) => choose({ token: i }));
}

const STRIPS = [["token_embedding", "token vector"], ["position_embedding", "+ position vector"], ["input", "= input"]]
  .filter(([name]) => data.input[name]); // rotary positions have no vector
function drawStrips() {
  const rows = STRIPS.map(([key, name]) => ({ name, values: data.input[key][state.token] }));
  const first = rows.map(({ values }) => number(values[0], 4));
  $("strips").replaceChildren(strips(rows));
  $("sum").textContent = `The first of the ${rows[0].values.length} numbers: ${first.slice(0, -1).join(" + ")} = ${last(first)}`;
}

// ------------------------------------------------------------ attention
const layers = choices("Layer", numbers(data.layers), 0, (layer) => choose({ layer }));
const heads = choices("Head", numbers(data.heads), 0, (head) => choose({ head }));
function buildAttention() {
  $("which").append(layers, heads);
  $("heads").style.setProperty("--heads", data.heads);
  $("heads").append(...data.attention.flatMap((row, layer) => row.map((_, head) => make("button", { type: "button", "data-item": "",
    "aria-label": `layer ${layer + 1}, head ${head + 1}`, onclick: () => choose({ layer, head }) }, make("canvas"), `${layer + 1}.${head + 1}`))));
  roving($("heads"), (n) => choose({ layer: Math.floor(n / data.heads), head: n % data.heads }), data.heads);
  $("looks").append(...names.map((name, i) => make("span", { onmouseenter: () => choose({ token: i }) }, name)));
}
function paintHeads() {
  $("heads").querySelectorAll("canvas").forEach((canvas, i) =>
    small(canvas, data.attention[Math.floor(i / data.heads)][i % data.heads], weightPaint()));
}
function say(weights, from, to) {
  const order = to === undefined ? weights[from].map((_, i) => i).sort((a, b) => weights[from][b] - weights[from][a]).slice(0, 4) : [to];
  $("says").textContent = `Layer ${state.layer + 1}, head ${state.head + 1}: “${names[from]}” looks at ` +
    order.map((i) => `“${names[i]}” ${percent(weights[from][i])}`).join(", ");
}
function drawAttention() {
  const { token, layer, head } = state, weights = data.attention[layer][head];
  mark([...layers.querySelectorAll("button")], layer);
  mark([...heads.querySelectorAll("button")], head);
  mark([...$("heads").children], layer * data.heads + head);
  [...$("looks").children].forEach((span, i) => {
    span.className = i === token ? "from" : i > token ? "later" : "";
    span.style.background = i > token ? "" : colour("--accent", 0.55 * Math.sqrt(weights[token][i]));
  });
  say(weights, token);
  heat($("square"), `Weights of layer ${layer + 1}, head ${head + 1}`, weights, names, weightPaint(), token,
    (y, x, click) => { if (click) choose({ token: y }); else if (x <= y) say(weights, y, x); });
}

// ------------------------------------------------------------ the stream, the lens, the next token
function drawNorms() {
  const stages = [["input", "input", null]];
  for (let layer = 0; layer < data.layers; layer++) {
    const at = `blocks.${layer}.`;
    stages.push([`layer ${layer + 1}, attention`, at + "residual_mid", at + "attention.output"]);
    stages.push([`layer ${layer + 1}, feed-forward`, at + "residual_out", at + "feed_forward.output"]);
  }
  const rows = stages.map(([name, ...parts]) => [name, ...parts.map((part) => (part ? data.norms[part][state.token] : null))]);
  const most = largest(rows.flatMap(([, stream, added]) => [stream, added ?? 0]));
  const cells = (length) => (length === null ? ["", ""] : [bar(length / most), number(length, 2)]);
  $("norms").replaceChildren(table("Norms by layer", ["after", "length of the stream", "length, stream|", "length of what was added", "length, added|"],
    rows.map(([name, stream, added]) => ({ cells: [name, ...cells(stream), ...cells(added)] }))));
}

function buildLens() {
  const rows = Object.values(data.lens).map((words, layer) => make("tr", {}, make("th", { scope: "row" }, layer ? `layer ${layer}` : "input"),
    words.map((word, i) => make("td", { onclick: () => choose({ token: i }), style: { background: `rgba(var(--accent), ${0.05 + 0.4 * word.probability})` } },
      make("span", {}, visible(word.text)), make("small", {}, percent(word.probability))))));
  const head = make("tr", {}, make("th", { scope: "col" }, "after"), names.map((name) => make("th", { scope: "col" }, name)));
  return make("table", { id: "lens" }, make("thead", {}, head), make("tbody", {}, rows));
}

function drawNext() {
  const words = data.next[state.token];
  $("mass").textContent = percent(words.reduce((sum, word) => sum + word.probability, 0));
  $("next").replaceChildren(table("Likeliest next tokens", ["token", "id|", "logit|", "probability|", ""], words.map((word) =>
    ({ cells: [visible(word.text), String(word.id), number(word.logit), percent(word.probability), bar(word.probability)] }))));
}

const lens = buildLens();
$("lens-box").append(lens);
buildTokens();
buildAttention();
paintHeads();
choose({});
let waiting = 0;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAttention, 100); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paintHeads(); choose({}); });

// Page 3: one head step by step with its real numbers, all heads small, arcs over the text, several texts compared.
import { bar, choices, ink, make, mark, number, percent, printable, roving, visible } from "./dom.js";
import { svg } from "./chart.js";
import { heat, largest, legend, signedPaint, small, strip, weightPaint } from "./draw.js";
import { about, ask, chosen, keep, place, start, state, token, tokenRow, trying, view } from "./frame.js";

const STEPS = [
  ["queries · keys", "scores", "How well what the token looks for fits what each token offers: the sum of the products of their numbers."],
  ["scaled", "scaled", "Divided by the square root of the head’s width, so that the spread does not grow with it."],
  ["masked", "masked", "No token looks ahead: later ones are set to −∞."],
  ["softmax", "weights", "Each row becomes shares that add up to one."],
  ["dropout", "dropped", "While training, some weights are dropped by chance and the rest raised. Here is one throw of the dice; the context below is computed without, as when the model is used."],
  ["× values", "weights", "Each token’s value counts as much as its weight; their sum is the context vector."],
];
const row = view("looking", "The token that looks", "Choose the token whose view is shown below.");
const steps = view("steps", "From queries and keys to the context");
const square = view("square", "All tokens at once", "", "half");
const grid = view("grid", "All heads", "Layers from top to bottom, heads from left to right. Choose one to see it large.", "half");
const arcs = view("arcs", "Arcs over the text", "From the chosen token to those it looks at; the thicker, the greater the weight.");
const compare = view("compare", "Several texts", "The same head on other texts: a line of the box is a text.");
let data = null, every = null;
const step = () => Math.min(chosen("step", 3), STEPS.length - 1);
const rate = () => Number(state.dropout ?? 0.1);

async function loadHead() {
  data = await ask("attention", { dropout: rate() });
  drawAll();
}

const choose = (change) => { keep(change); return trying(loadHead); };

function drawAll() {
  const i = place();
  drawSteps(i);
  drawSquare(i);
  mark([...grid.body.querySelectorAll("button")], data.layer * about.heads + data.head);
  drawArcs(i);
}

function drawSteps(i) {
  const now = step(), [, , sentence] = STEPS[now];
  steps.text.textContent = `${now + 1} of ${STEPS.length}, ${STEPS[now][0]}: ${sentence}`;
  [data.layer, data.head, now].forEach((n, which) => mark([...steps.controls[which].querySelectorAll("button")], n));
  const most = largest(data.queries, data.keys), mostValue = largest(data.values, data.context);
  const later = (n) => (n > now ? " later" : n === now ? " now" : "");
  const cell = (n, text) => make("td", { className: `n${later(n)}` }, text);
  const head = ["token", "key", "q · k", "scaled", "masked", "weight", "", "dropped", "value", "weight × value"];
  const at = [0, 0, 0, 1, 2, 3, 3, 4, 5, 5];
  const rows = about.tokens.map((_, j) => {
    const weight = data.weights[i][j], hidden = data.masked[i][j] === null;
    const scaled = data.values[j].map((value) => value * weight);
    return make("tr", {}, make("th", { scope: "row", className: "word" }, token(j)),
      make("td", { className: later(0) }, strip(data.keys[j], most, `key of ${token(j)}`)),
      cell(0, number(data.scores[i][j])), cell(1, number(data.scaled[i][j])), cell(2, hidden ? "−∞" : number(data.masked[i][j])),
      cell(3, number(weight, 4)), make("td", { className: later(3) }, bar(weight)), cell(4, number(data.dropped[i][j], 4)),
      make("td", { className: later(5) }, strip(data.values[j], mostValue, `value of ${token(j)}`)),
      make("td", { className: later(5) }, strip(scaled, mostValue, `weight times value of ${token(j)}`)));
  });
  const sum = make("tr", {}, make("th", { scope: "row", colSpan: 2 }, "the query of ", make("span", { className: "mono" }, token(i))),
    make("td", { colSpan: 3 }, strip(data.queries[i], most, `query of ${token(i)}`)),
    make("td", { className: "n" }, number(data.weights[i].reduce((a, b) => a + b, 0), 4)),
    make("td", { colSpan: 3 }, "sum: the context vector"), make("td", {}, strip(data.context[i], mostValue, "context vector")));
  const table = make("table", { className: "sums" },
    make("thead", {}, make("tr", {}, head.map((name, n) => make("th", { scope: "col", className: later(at[n]) + ([2, 3, 4, 5, 7].includes(n) ? " n" : "") },
      name || make("span", { className: "hidden" }, "as a bar"))))),
    make("tbody", {}, rows), make("tfoot", {}, sum));
  const box = make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "The steps in numbers" }, table);
  steps.table.replaceChildren(box, legend());
  box.scrollLeft = table.querySelector("th.now").offsetLeft - 0.5 * box.clientWidth; // where it is too narrow for all
}

/** What is pressed stays where it is while the table under it is drawn anew, so the keyboard goes on from there. */
function buildSteps() {
  const numbers = (count) => Array.from({ length: count }, (_, n) => n + 1);
  steps.controls = [
    choices("Layer", numbers(about.layers), data.layer, (n) => choose({ layer: n })),
    choices("Head", numbers(about.heads), data.head, (n) => choose({ head: n })),
    choices("Step", STEPS.map(([name]) => name), step(), (n) => { keep({ step: n }); drawSteps(place()); drawSquare(place()); }),
  ];
  steps.table = make("div");
  steps.body.replaceChildren(make("div", { className: "controls" }, steps.controls, dropoutField()), steps.table);
}

function dropoutField() {
  const said = make("output", {}, percent(rate()));
  const input = make("input", { type: "range", min: 0, max: 0.9, step: 0.1, value: rate(), id: "dropout",
    oninput: () => { said.textContent = percent(Number(input.value)); },
    onchange: () => choose({ dropout: input.value, step: 4 }) });
  const trained = data.trained_dropout ? `this model was trained with ${percent(data.trained_dropout)}` : "this model was trained without";
  return make("label", { className: "field" }, `Dropout (${trained})`, input, said);
}

function drawSquare(i) {
  const [name, key] = STEPS[step()];
  const weights = key === "weights" || key === "dropped";
  const rows = data[key], paint = weights ? weightPaint() : signedPaint(largest(rows.flat().filter((value) => value !== null)));
  const says = make("p", { className: "says", "aria-live": "polite" });
  const say = (y, x) => { says.textContent = `“${token(y)}” → “${token(x)}”: ${rows[y][x] === null ? "−∞" : number(rows[y][x], 6)}`; };
  const box = make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Matrix" });
  square.body.replaceChildren(box, says);
  square.text.textContent = `Layer ${data.layer + 1}, head ${data.head + 1}, ${name}. A row is the token that looks, a column the token it looks at.`;
  heat(box, `${name} of layer ${data.layer + 1}, head ${data.head + 1}`, rows, about.tokens.map((_, n) => token(n)), paint, i,
    (y, x, click) => (click ? pick(y) : say(y, x)));
  const best = data.weights[i].map((_, n) => n).sort((a, b) => data.weights[i][b] - data.weights[i][a]).slice(0, 4);
  says.textContent = `“${token(i)}” looks at ${best.map((n) => `“${token(n)}” ${percent(data.weights[i][n])}`).join(", ")}`;
}

function pick(i) {
  keep({ token: i });
  mark([...row.body.querySelectorAll(".token")], i);
  drawAll();
}

function drawGrid() {
  const buttons = every.attention.flatMap((heads, layer) => heads.map((weights, head) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    small(canvas, weights, weightPaint());
    return make("button", { type: "button", "data-item": "", "aria-label": `layer ${layer + 1}, head ${head + 1}`,
      onclick: () => choose({ layer, head }) }, canvas, `${layer + 1}.${head + 1}`);
  }));
  const box = make("div", { className: "heads", role: "group", "aria-label": "All heads", style: { "--heads": about.heads } }, buttons);
  roving(box, (n) => choose({ layer: Math.floor(n / about.heads), head: n % about.heads }), about.heads);
  grid.body.replaceChildren(make("div", { className: "scroll" }, box));
}

function drawArcs(i) {
  const context = make("canvas").getContext("2d");
  context.font = `13px ${ink("--mono")}`;
  let x = 10;
  const middles = about.tokens.map((_, n) => {
    const width = context.measureText(token(n)).width;
    x += width + 12;
    return x - 12 - width / 2;
  });
  const reach = Math.min(170, 20 + (middles[i] - middles[0]) / 2.4), width = Math.max(x + 10, 200);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${reach + 34}`, width, height: reach + 34, role: "img", "data-whole": "",
    "aria-label": `Where ${token(i)} looks in layer ${data.layer + 1}, head ${data.head + 1}` });
  data.weights[i].forEach((weight, n) => {
    if (weight < 0.005) return;
    const [from, to] = [middles[n], middles[i]], high = Math.min(reach - 6, 14 + Math.abs(to - from) / 2.4);
    const d = n === i ? `M${to - 7} ${reach}C${to - 16} ${reach - 24} ${to + 16} ${reach - 24} ${to + 7} ${reach}`
      : `M${from} ${reach}C${from} ${reach - high * 1.3} ${to} ${reach - high * 1.3} ${to} ${reach}`;
    drawing.append(svg("path", { d, fill: "none", stroke: "var(--blue)", "stroke-width": 0.8 + 7 * weight, "stroke-opacity": 0.25 + 0.75 * weight },
      svg("title", {}, `${token(n)} ${percent(weight)}`)));
  });
  about.tokens.forEach((_, n) => drawing.append(svg("text", { x: middles[n], y: reach + 18, "text-anchor": "middle", class: `code${n > i ? " soft" : ""}`,
    "font-size": 13, "font-weight": n === i ? 700 : 400 }, token(n))));
  const box = make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Arcs" }, drawing);
  arcs.body.replaceChildren(box);
  box.scrollLeft = middles[i] - 0.8 * box.clientWidth; // where it is too narrow: the chosen token and what is before it
}

const others = () => (state.others ?? "").split("\n").filter(Boolean).slice(0, 4);
function buildCompare() {
  const texts = make("div", { className: "texts" });
  const box = make("textarea", { rows: 2, value: state.others ?? "", id: "others", placeholder: "Another text, and another on the next line",
    onchange: () => { keep({ others: box.value }); trying(load); } });
  const load = async () => {
    const found = await Promise.all(others().map(async (text, n) => {
      const known = await ask("about", { text, more: "" }, `other-about-${n}`);
      return [known, await ask("attention", { text, more: "", dropout: 0 }, `other-${n}`)];
    }));
    texts.replaceChildren(...found.map(([known]) => {
      const square = make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Weights of another text" });
      return make("div", {}, make("p", { className: "small mono" }, printable(known.text)), known.note ? make("p", { className: "small soft" }, known.note) : null, square);
    }));
    found.forEach(([{ tokens }, other], n) => heat(texts.children[n].lastChild, `Weights of text ${n + 1}`, other.weights,
      tokens.map((piece) => visible(piece.text)), weightPaint(), tokens.length - 1, () => {}));
  };
  compare.body.replaceChildren(make("label", { className: "field wide controls" }, "Texts", box), texts);
  return trying(load);
}

start(async () => {
  [data, every] = await Promise.all([ask("attention", { dropout: rate() }), ask("heads")]);
  row.body.replaceChildren(tokenRow(drawAll));
  buildSteps();
  drawGrid();
  drawAll();
  await buildCompare();
});

// Page 5: from logits to one token with sliders, a word at a time and back, the logit lens, heads switched off.
import { bar, make, number, percent, printable, roving, visible, whole } from "./dom.js";
import { small, weightPaint } from "./draw.js";
import { about, ask, keep, start, state, trying, view } from "./frame.js";

const next = view("next", "The next word", "", "half");
const off = view("off", "Switch heads off", "A head that is off adds nothing. Choose heads, and the table of the next word shows how the probabilities move.", "half");
const lens = view("lens", "Logit lens", "What would the model say if it ended after this layer? Each cell is the likeliest next token there; the last row is the real answer.");
let data = null;

const SLIDERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, start: 1, say: (value) => (value ? number(value, 2) : "0: the likeliest") },
  { name: "top_k", label: "Top-k", min: 0, max: 50, step: 1, start: 0, say: (value) => (value ? String(value) : "all") },
  { name: "top_p", label: "Top-p", min: 0.05, max: 1, step: 0.05, start: 1, say: (value) => (value < 1 ? number(value, 2) : "all") },
];
const more = () => (state.more ? state.more.split(",") : []);
const seed = () => Number(state.seed ?? 0);

const redraw = () => trying(async () => {
  data = await ask("next-word");
  drawTable();
});

function build() {
  const sliders = SLIDERS.map(({ name, label, min, max, step, start: usual, say }) => {
    const said = make("output", {}, say(Number(state[name] ?? usual)));
    const input = make("input", { type: "range", min, max, step, value: state[name] ?? usual, id: name,
      oninput: () => { said.textContent = say(Number(input.value)); keep({ [name]: input.value }); redraw(); } });
    return make("label", { className: "field" }, label, input, said);
  });
  const button = (id, text, onclick, primary = "") => make("button", { type: "button", id, onclick, className: primary }, text);
  const buttons = [
    button("draw", "Draw a word", () => take(data.drawn), "primary"),
    button("likeliest", "Take the likeliest", () => take(data.next[0].id)),
    button("again", "Other dice", () => { keep({ seed: seed() + 1 }); redraw(); }),
    button("back", "Step back", back),
  ];
  next.controls = make("div", { className: "controls" }, sliders, make("div", { className: "row" }, buttons));
  next.line = make("p", { className: "mono", id: "written" });
  next.table = make("div");
  next.body.replaceChildren(next.controls, next.line, next.table);
}

async function step(list) {
  keep({ more: list.join(","), seed: seed() + (list.length > more().length ? 1 : 0), token: "" });
  const focus = document.activeElement?.id;
  await reload();
  if (focus) document.getElementById(focus)?.focus();
}
const take = (id) => step([...more(), id]);
const back = () => step(more().slice(0, -1));

async function reload() {
  await trying(async () => {
    const [words, layers, heads] = await Promise.all([ask("next-word"), ask("lens"), ask("heads", { off: "" })]);
    [data, lensData] = [words, layers];
    drawTable();
    drawLens();
    paintOff(heads);
  });
}
let lensData = null;

function drawTable() {
  const last = data.written.at(-1);
  next.line.replaceChildren(...data.written.slice(1).map((piece, i) =>
    make("span", { className: i + 1 >= data.written.length - more().length ? "trained" : "" }, printable(piece.text))), make("span", { className: "soft" }, " …"));
  next.text.textContent = `After “${visible(last.text)}”: ${whole(data.kept)} of ${whole(data.known)} tokens are kept; the marked one is what the dice draw.`;
  document.getElementById("back").disabled = !more().length;
  const compared = Boolean(data.before);
  const columns = ["token", "id|", "logit|", "scaled|", "kept", ...(compared ? ["all heads on|", "now|"] : ["probability|"]), "", "cumulative|"];
  const longest = Math.max(...data.next.map((row) => row.probability), 1e-9);
  const head = make("tr", {}, columns.map((name) => make("th", { scope: "col", className: name.endsWith("|") ? "n" : "" },
    name.replace("|", "") || make("span", { className: "hidden" }, "as a bar"))));
  const rows = data.next.map((row, i) => {
    const cells = [make("button", { type: "button", className: "token", "data-item": "", tabIndex: i ? -1 : 0, onclick: () => take(row.id),
      "aria-label": `take ${printable(row.text)}` }, make("span", {}, visible(row.text))), String(row.id), number(row.logit), number(row.scaled), row.kept ? "✓" : "·"];
    if (compared) cells.push(percent(data.before[i]));
    cells.push(percent(row.probability), bar(row.probability / longest), row.kept ? percent(row.cumulative) : "");
    return make("tr", { className: `${row.drawn ? "drawn" : ""}${row.kept ? "" : " out"}` },
      cells.map((cell, n) => make("td", { className: columns[n].endsWith("|") ? "n" : "" }, cell)));
  });
  const rest = make("p", { className: "small soft" }, `${whole(data.others.tokens)} others: ${percent(data.others.probability)} together. Choose a word to take it.`);
  const box = make("div", { className: "box" }, make("table", { className: "words" }, make("thead", {}, head), make("tbody", {}, rows)));
  roving(box, () => {});
  next.table.replaceChildren(box, rest);
  off.moved.textContent = compared
    ? `The model’s own probabilities, before any choosing, moved by ${number(data.moved, 4)} nats together. With all heads on the likeliest was “${visible(data.was.text)}” (${percent(data.was.probability)}).`
    : "All heads are on.";
}

const silent = () => new Set((state.off ?? "").split(",").filter(Boolean));
function buildOff() {
  const buttons = Array.from({ length: about.layers * about.heads }, (_, n) => {
    const key = `${Math.floor(n / about.heads)}.${n % about.heads}`;
    const button = make("button", { type: "button", "data-item": "", onclick: () => toggle(key, button) },
      make("canvas", { "aria-hidden": "true" }), key.split(".").map((i) => Number(i) + 1).join("."));
    show(button, key);
    return button;
  });
  const box = make("div", { className: "heads", role: "group", "aria-label": "Heads; a pressed one is off", style: { "--heads": about.heads } }, buttons);
  off.moved = make("p", { className: "says", "aria-live": "polite" });
  off.body.replaceChildren(make("div", { className: "scroll" }, box), off.moved);
}

/** Only the pictures are painted anew: a button that somebody is just using stays the same button. */
function paintOff({ attention }) {
  off.body.querySelectorAll("canvas").forEach((canvas, n) =>
    small(canvas, attention[Math.floor(n / about.heads)][n % about.heads], weightPaint()));
}

function show(button, key) {
  const isOff = silent().has(key), [layer, head] = key.split(".").map(Number);
  button.className = isOff ? "off" : "";
  button.setAttribute("aria-pressed", isOff);
  button.setAttribute("aria-label", `layer ${layer + 1}, head ${head + 1}: ${isOff ? "off" : "on"}`);
}

async function toggle(key, button) {
  const now = silent();
  if (!now.delete(key)) now.add(key);
  keep({ off: [...now].join(",") });
  show(button, key);
  await trying(async () => {
    [data, lensData] = await Promise.all([ask("next-word"), ask("lens")]);
    drawTable();
    drawLens();
  });
}

function drawLens() {
  const names = Object.keys(lensData), here = data.written.length - 1;
  const head = make("tr", {}, make("th", { scope: "col" }, "after"), data.written.map((piece) => make("th", { scope: "col" }, visible(piece.text))));
  const rows = names.map((name, layer) => make("tr", {}, make("th", { scope: "row" }, layer ? `layer ${layer}` : "input"),
    lensData[name].map((word, i) => {
      const cell = make("td", { className: i === here ? "here" : "" }, make("span", {}, visible(word.text)), make("small", {}, percent(word.probability)));
      cell.style.background = `rgba(var(--accent), ${0.05 + 0.4 * word.probability})`;
      return cell;
    })));
  const box = make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "Logit lens, a table" },
    make("table", { className: "lens" }, make("thead", {}, head), make("tbody", {}, rows)));
  lens.body.replaceChildren(box);
  box.scrollLeft = box.scrollWidth;
}

start(async () => {
  build();
  buildOff();
  await reload();
});

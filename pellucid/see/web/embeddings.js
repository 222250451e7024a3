// Page 2: token vector + position vector = input; a map of the vocabulary; the patterns of positions.
import { make, number, percent, visible, whole } from "./dom.js";
import { largest, legend, signedPaint, small, strips } from "./draw.js";
import { vocabularyMap } from "./map.js";
import { about, ask, chosen, keep, place, start, tokenRow, trying, view } from "./frame.js";

const sum = view("sum", "Token vector + position vector = input", "Choose a token. The strips show its numbers as colours, all on one scale.");
const map = view("map", "A map of the vocabulary",
  "Each dot is a token, put on the two directions in which the vectors differ most. Search, zoom with the buttons or the wheel, drag, and choose a dot to see which tokens are its neighbours.");
const patterns = view("patterns", "The patterns of positions");
const NAMES = { token_embedding: "token vector", position_embedding: "+ position vector", input: "= input" };
let data = null;

function drawSum() {
  const i = place(), rows = Object.entries(NAMES).filter(([key]) => data[key]);
  const width = data.input[i].length, at = Math.min(chosen("number"), width - 1);
  const most = largest(rows.map(([key]) => data[key][i]));
  const strip = strips(rows.map(([key, name]) => ({ name, values: data[key][i], said: number(data[key][i][at], 4) })), most);
  const equation = rows.map(([key]) => number(data[key][i][at], 6));
  const said = make("p", { className: "mono small", "aria-live": "polite" },
    `number ${at + 1} of ${width}: ${equation.slice(0, -1).join(" + ")} = ${equation.at(-1)}`);
  const slider = make("input", { type: "range", min: 1, max: width, value: at + 1, id: "number",
    oninput: () => { keep({ number: slider.value - 1 }); drawSum(); document.getElementById("number").focus(); } });
  sum.strips.replaceChildren(strip, make("label", { className: "field wide controls" }, "Number", slider), said, legend());
}

async function drawMap() {
  const found = await ask("vocabulary");
  map.note.textContent = `These two directions show ${percent(found.share)} of how the vectors differ; what is near here may be far in the others, so neighbours are found in all ${whole(about.d_model)}.` +
    (found.known > found.points.length ? ` The first ${whole(found.points.length)} of ${whole(found.known)} tokens are drawn.` : "");
  map.drawn.show(found, new Set(about.tokens.map(({ id }) => id)));
  await showNeighbours(about.tokens[place()].id);
}

async function showNeighbours(id) {
  await trying(async () => {
    const found = await ask("neighbours", { token: id });
    map.drawn.choose(id, found.neighbours.map((one) => one.id));
    const rows = found.neighbours.map((one) => make("tr", {}, make("td", {}, make("button", { type: "button", className: "token", onclick: () => showNeighbours(one.id) },
      make("span", {}, visible(one.text)))), make("td", { className: "n" }, String(one.id)), make("td", { className: "n" }, number(one.cosine, 4))));
    map.near.replaceChildren(make("h3", {}, "Nearest to ", make("span", { className: "mono" }, visible(found.text))),
      make("table", { className: "words" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "token"), make("th", { scope: "col", className: "n" }, "id"),
        make("th", { scope: "col", className: "n" }, "cosine"))), make("tbody", {}, rows)));
  });
}

function buildMap() {
  map.drawn = vocabularyMap(showNeighbours);
  map.near = make("div", { "aria-live": "polite" });
  map.note = make("p", { className: "small soft" });
  const found = make("span", { className: "small soft", role: "status" });
  const search = make("input", { type: "search", id: "search", oninput: () => {
    const best = map.drawn.search(search.value);
    found.textContent = search.value ? `${whole(best.length)} found` : "";
  }, onkeydown: (event) => { if (event.key === "Enter") { const [first] = map.drawn.search(search.value); if (first !== undefined) showNeighbours(first); } } });
  const button = (text, label, onclick) => make("button", { type: "button", "aria-label": label, onclick }, text);
  const controls = make("div", { className: "controls" }, make("label", { className: "field" }, "Search", search), found,
    make("div", { className: "row" }, button("+", "Zoom in", () => map.drawn.zoom(1.5)), button("−", "Zoom out", () => map.drawn.zoom(1 / 1.5)), button("whole map", "Show the whole map", () => map.drawn.reset())));
  const columns = make("div", { className: "columns wide-left" }, make("div", {}, map.drawn.canvas, map.note), map.near);
  map.body.replaceChildren(controls, columns);
}

async function drawPatterns() {
  const found = await ask("positions");
  const [rows, columns] = found.shape;
  const kinds = { learned: "Learnt: one vector for each position.", sinusoidal: "Fixed waves: never trained.",
    rotary: "No vectors: queries and keys are turned by angles; their cosines and sines are shown." };
  patterns.text.textContent = `${kinds[found.kind]} ${whole(rows)} positions from top to bottom.` +
    (found.rows.length < rows || found.columns.length < columns ? " Rows and columns are evenly left out." : "");
  const picture = (label, matrix, paint) => {
    const canvas = make("canvas", { role: "img", "aria-label": label, className: "strip" });
    small(canvas, matrix, paint);
    canvas.style.height = "auto";
    canvas.style.aspectRatio = "1";
    return make("div", {}, make("h3", {}, label), canvas);
  };
  const most = largest(found.pattern);
  patterns.body.replaceChildren(make("div", { className: "charts" },
    picture(`The vectors: ${columns} numbers from left to right`, found.pattern, signedPaint(most)),
    picture("How alike two positions are (cosine)", found.alike, signedPaint(1))), legend());
}

start(async () => {
  data = await ask("embeddings");
  sum.section.querySelector("h2").textContent = data.position_embedding ? "Token vector + position vector = input" : "Token vector = input";
  sum.strips = make("div");
  sum.body.replaceChildren(tokenRow(() => { drawSum(); showNeighbours(about.tokens[place()].id); }), sum.strips);
  drawSum();
  if (!map.drawn) buildMap();
  await Promise.all([drawMap(), drawPatterns()]);
});

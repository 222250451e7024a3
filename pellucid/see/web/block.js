// Page 4: one token's vector through one block, with mean, variance and length; lengths by layer; what each part adds.
import { bar, choices, make, number, percent, visible } from "./dom.js";
import { largest, legend, strip } from "./draw.js";
import { lineChart } from "./chart.js";
import { about, ask, keep, start, token, place, tokenRow, trying, view } from "./frame.js";

const NAMES = {
  residual_in: ["the stream comes in", ""],
  attention_norm: ["normalised", "for attention"],
  "attention.output": ["attention adds", "what it gathered"],
  residual_mid: ["the stream", "+ shortcut"],
  feed_forward_norm: ["normalised", "for the feed-forward"],
  "feed_forward.hidden": ["widened and bent", "inside the feed-forward"],
  "feed_forward.output": ["the feed-forward adds", "what it worked out"],
  residual_out: ["the stream goes on", "+ shortcut"],
};
const row = view("token-row", "The token", "Choose the token whose vector is followed.");
const through = view("through", "Through one block");
const lengths = view("lengths", "Lengths by layer", "How long the stream is after each half of each block, and how long the vector is that this half added.", "half");
const adds = view("adds", "What each part adds",
  "Where an added vector points along the stream (cosine near 1) it says more of the same, where it points against it, it takes back. The word is what the model would say had it ended there.", "half");
let data = null;

const load = () => trying(async () => {
  data = await ask("block", { token: place() });
  draw();
});

function draw() {
  const layers = choices("Layer", Array.from({ length: about.layers }, (_, n) => n + 1), data.layer, async (n) => {
    keep({ layer: n });
    await load();
    through.body.querySelectorAll("[data-item]")[n]?.focus();
  });
  const streams = largest(data.parts.filter(({ role }) => role === "stream" || role === "added").map(({ vector }) => vector));
  const norms = largest(data.parts.filter(({ role }) => role === "norm").map(({ vector }) => vector));
  const rows = data.parts.map((part) => {
    const [name, sub] = NAMES[part.name];
    const most = part.role === "norm" ? norms : part.role === "hidden" ? largest(part.vector) : streams;
    return make("tr", {}, make("th", { scope: "row" }, name, sub ? make("small", { className: "soft" }, ` ${sub}`) : null), make("td", {}, strip(part.vector, most, name)),
      ...["mean", "variance", "length"].map((key) => make("td", { className: "n" }, number(part[key], key === "length" ? 2 : 4))));
  });
  const head = ["", "vector", "mean", "variance", "length"].map((name, n) =>
    make("th", { scope: "col", className: n > 1 ? "n" : "" }, name || make("span", { className: "hidden" }, "part")));
  const kind = data.norm === "RMSNorm" ? "RMSNorm scales each vector to a mean square of 1 and then stretches it by what was learnt."
    : "LayerNorm shifts each vector to mean 0 and scales it to variance 1, then stretches and moves it by what was learnt.";
  through.text.textContent = `Block ${data.layer + 1} of ${about.layers}, the vector of “${token(data.token)}”. ${kind} The shortcut adds a part’s result to the stream, unchanged.`;
  through.body.replaceChildren(make("div", { className: "controls" }, layers),
    make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "The vector through the block" },
      make("table", { className: "sums through" }, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows))), legend());
  drawLengths();
  drawAdds();
}

const half = (stage) => `${stage.layer + 1}, ${stage.half === "attention" ? "attention" : "feed-forward"}`;

function drawLengths() {
  const stream = [[0, data.input], ...data.stages.map((stage, i) => [(i + 1) / 2, stage.stream])];
  const added = data.stages.map((stage, i) => [(i + 1) / 2, stage.added]);
  lengths.body.replaceChildren(lineChart("Length of the stream and of what is added, by layer", [
    { name: "the stream", points: stream, colour: "--blue", dots: true },
    { name: "what was added", points: added, colour: "--orange", dots: true, dash: "5 4" },
  ], { x: "layer", y: "length", zero: true, wholeX: true }));
}

function drawAdds() {
  const most = Math.max(...data.stages.map(({ added }) => added), 1e-9);
  const columns = ["after layer", "added|", "", "cosine with the stream|", "would say", "probability|"];
  const word = (found) => [make("span", { className: "mono" }, visible(found.text)), percent(found.probability)];
  const cells = (values) => values.map((value, n) => make("td", { className: columns[n + 1].endsWith("|") ? "n" : "" }, value));
  const rows = [make("tr", {}, make("th", { scope: "row" }, "input"), cells(["", "", "", ...word(data.word)])), ...data.stages.map((stage) =>
    make("tr", {}, make("th", { scope: "row" }, half(stage)), cells([number(stage.added, 2), bar(stage.added / most), number(stage.cosine, 3), ...word(stage.word)])))];
  adds.body.replaceChildren(make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "What each part adds, in numbers" },
    make("table", { className: "stages" }, make("thead", {}, make("tr", {}, columns.map((name) =>
      make("th", { scope: "col", className: name.endsWith("|") ? "n" : "" }, name.replace("|", "") || make("span", { className: "hidden" }, "as a bar"))))), make("tbody", {}, rows))));
}

start(async () => {
  row.body.replaceChildren(tokenRow(load));
  await load();
});

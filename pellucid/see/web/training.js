// Page 6: the curves of a run, live while it trains; runs compared; what it wrote on the way.
import { bar, make, number, printable, whole } from "./dom.js";
import { brief, lineChart } from "./chart.js";
import { about, ask, keep, renew, start, state, trying, view } from "./frame.js";

const EVERY = 1500; // milliseconds between two looks at a run
const COLOURS = ["--blue", "--orange", "--green", "--purple", "--red", "--sky"];
const now = view("now", "Where the run is");
const curves = view("curves", "The curves", "Strong lines are text that the model is not trained on; thin ones are the batches of training.");
const samples = view("samples", "What it wrote on the way", "Texts that the model wrote at different times of its training: move through time.");
const runs = new Map(); // name → its data
let timer = 0;

const STEP = 0, TOKENS = 1;
const compared = () => new Set(JSON.parse(state.compare ?? "[]"));
const shown = () => [about.model, ...[...compared()].filter((name) => name !== about.model)];

async function look(name) {
  const before = runs.get(name);
  const found = await ask("training", { model: name, known: before?.version ?? "" }, `training-${name}`);
  if (found.columns) runs.set(name, found);
  else before.quiet = found.quiet;
  return Boolean(found.columns);
}

async function refresh() {
  const evaluated = () => runs.get(about.model).val.length, before = evaluated();
  const news = await Promise.all(shown().map(look));
  if (!news.some(Boolean)) return drawNow();
  if (evaluated() !== before) await renew();
  draw();
}

function watch() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (!document.hidden) await trying(refresh);
    watch();
  }, EVERY);
}

const points = (rows, x, y) => rows.filter((row) => row[x] !== null && row[y] !== null).map((row) => [row[x], row[y]]);

function drawNow() {
  const run = runs.get(about.model), last = run.train.at(-1), val = run.val.at(-1);
  if (!last && !val) {
    now.text.textContent = "This run has written no metrics: nothing was trained here, or not yet.";
    now.body.replaceChildren();
    return;
  }
  const alive = run.quiet !== null && run.quiet < run.patience && !(run.planned && last?.[STEP] >= run.planned);
  now.text.textContent = alive ? "It trains now; this page follows it." : "It is not training now.";
  const facts = [["steps", last ? whole(last[STEP]) : "–"], ["tokens", last ? brief(last[TOKENS] ?? 0) : "–"], ["loss, this batch", number(last?.[2])],
    ["loss, held-out text", number(val?.[2])], ["tokens a second", last?.[5] ? whole(last[5]) : "–"],
    ...Object.entries(run.scores).filter(([name]) => name !== "loss").slice(0, 2).map(([name, value]) => [name.replaceAll("_", " "), number(value)])];
  now.body.replaceChildren(make("dl", { className: "facts quiet" }, facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    run.planned && last ? make("div", {}, make("p", { className: "small soft" }, `${whole(last[STEP])} of ${whole(run.planned)} steps`), bar(last[STEP] / run.planned)) : "",
    run.command ? make("p", { className: "small soft" }, "Made by ", make("code", {}, printable(run.command))) : "");
}

function drawCurves() {
  const many = shown().map((name) => runs.get(name)).filter(Boolean);
  const own = runs.get(about.model);
  const lines = (column) => many.flatMap((run, i) => {
    const colour = COLOURS[i % COLOURS.length], thin = { colour, width: 1, opacity: column === 2 ? 0.45 : 0.9 };
    const train = { ...thin, name: column === 2 ? (many.length > 1 ? "" : "training batches") : many.length > 1 ? run.name : "", points: points(run.train, TOKENS, column) };
    const val = { colour, name: many.length > 1 ? run.name : "held-out text", points: points(run.val, TOKENS, 2), dots: true, dash: ["none", "6 3", "2 3"][Math.floor(i / 6) % 3] };
    return column === 2 ? [train, val] : [train];
  });
  const late = many.flatMap((run) => [...points(run.train, TOKENS, 2), ...points(run.val, TOKENS, 2)].filter((_, i, all) => i > all.length / 10).map(([, y]) => y));
  const high = late.length ? Math.max(...late) * 1.05 : undefined;
  const mark = about.checkpoints.find(({ name }) => name === state.checkpoint);
  const at = mark && own.train.find((row) => row[STEP] >= mark.step);
  const options = { x: "tokens seen", marks: at ? [{ x: at[TOKENS], name: `checkpoint of step ${mark.step}` }] : [] };
  const loss = { ...options, y: "loss (nats)", high, band: own.band ?? undefined,
    levels: own.levels.map(({ name, loss: y }) => ({ name: `${name} ${number(y)}`, y })) };
  const chart = (title, element) => make("div", {}, make("h3", {}, title), element);
  curves.charts.replaceChildren(
      chart("Loss", lineChart("Loss over tokens", lines(2), loss)), chart("Learning rate", lineChart("Learning rate over tokens", lines(3), { ...options, zero: true })),
      chart("Norm of the gradient", lineChart("Norm of the gradient over tokens", lines(4), { ...options, zero: true })),
      chart("Tokens a second", lineChart("Tokens a second", lines(5), { ...options, zero: true })));
}

/** Built once for a model: the charts are drawn anew while somebody moves among the boxes by keyboard. */
function buildCurves() {
  const boxes = about.models.filter(({ name }) => name !== about.model).map(({ name }) => make("label", { className: "field" },
    make("input", { type: "checkbox", checked: compared().has(name), onchange: (event) => {
      const names = compared();
      if (event.target.checked) names.add(name); else names.delete(name);
      keep({ compare: names.size ? JSON.stringify([...names]) : "" });
      trying(async () => { await Promise.all(shown().map(look)); draw(); });
    } }), name));
  curves.charts = make("div", { className: "charts" });
  curves.body.replaceChildren(boxes.length ? make("div", { className: "controls", role: "group", "aria-label": "Compare with" }, make("span", { className: "small soft" }, "Compare with"), boxes) : "", curves.charts);
}

function drawSamples() {
  const texts = runs.get(about.model).samples;
  samples.section.hidden = !texts.length;
  if (!texts.length) return;
  const at = Math.min(Number(state.sample ?? texts.length - 1), texts.length - 1);
  const said = make("output"), shownText = make("blockquote", { className: "sample", "aria-live": "polite" });
  const show = (i) => {
    said.textContent = `step ${whole(texts[i].step)}`;
    slider.setAttribute("aria-valuetext", said.textContent);
    shownText.textContent = printable(texts[i].text);
    loss.textContent = texts[i].loss === null ? "" : `held-out loss ${number(texts[i].loss)}`;
  };
  const slider = make("input", { type: "range", id: "sample", min: 0, max: texts.length - 1, value: at, oninput: () => { keep({ sample: slider.value }); show(Number(slider.value)); } });
  const loss = make("span", { className: "small soft" });
  samples.body.replaceChildren(make("div", { className: "controls" }, make("label", { className: "field wide" }, "Time", slider, said), loss), shownText);
  show(at);
}

function draw() {
  drawNow();
  drawCurves();
  if (document.activeElement?.id !== "sample") drawSamples();
}

start(async () => {
  buildCurves();
  await Promise.all(shown().map(look));
  draw();
  watch();
});

// Page 7: confusion, precision and recall, threshold, calibration, mistakes; a text live, and which words moved it.
import { bar, calmly, make, number, percent, printable, whole } from "./dom.js";
import { lineChart } from "./chart.js";
import { about, ask, keep, start, state, trying, view } from "./frame.js";

const live = view("live", "Type a message", "The words in blue speak for the label, those in orange against it: each was left out, and the rest classified again.");
const choice = view("threshold", "The threshold", "From which probability on it is said. Move it: what is found (recall) is paid for with what is falsely said (precision).");
const confusion = view("confusion", "Which was taken for which", "", "half");
const calibration = view("calibration", "Can the probability be believed?", "Held-out texts by the probability that was said: on the dotted line it is right as often as it says.", "half");
const mistakes = view("mistakes", "Mistakes", "The surest wrong answers on held-out texts.");
const EXAMPLE = "you won 500 dollars, call 0817 4352 now";
let found = null;

function buildLive() {
  const box = make("textarea", { rows: 2, id: "message", maxLength: 4000, value: state.message ?? EXAMPLE });
  live.result = make("div", { "aria-live": "polite" });
  const look = () => trying(async () => drawLive(await ask("moved", { message: box.value })));
  box.oninput = calmly(() => { keep({ message: box.value }); look(); }, 120);
  live.body.replaceChildren(make("label", { className: "field tall controls" }, "Message", box), live.result);
  return look();
}

function drawLive(answer) {
  const most = Math.max(0.02, ...answer.words.map(({ moved }) => Math.abs(moved)));
  const words = answer.words.map(({ text, moved }) => {
    const span = make("span", {}, printable(text.trim()), make("small", {}, number(100 * moved, 1)));
    span.style.background = `rgba(var(${moved < 0 ? "--warm" : "--accent"}), ${0.5 * Math.abs(moved) / most})`;
    return span;
  });
  const rows = answer.labels.map((label, i) => make("tr", {}, make("th", { scope: "row" }, printable(label)), make("td", { className: "n" }, percent(answer.probabilities[i])),
    make("td", {}, bar(answer.probabilities[i])), make("td", { className: "small soft" }, label in answer.thresholds ? `said from ${percent(answer.thresholds[label])} on` : "")));
  live.result.replaceChildren(make("p", { className: "verdict" }, printable(answer.label), " ", make("small", { className: "soft" }, percent(answer.probability))),
    make("p", { className: "moved" }, words.flatMap((word) => [word, " "])),
    make("p", { className: "small soft" }, `The small numbers: by how many hundredths the probability of “${printable(answer.about)}” falls without this word.${answer.cut ? " Of a long text only the first words are tried." : ""}`),
    make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "Probabilities" }, make("table", { className: "stages" }, make("tbody", {}, rows))));
}

/** The four counts at a point of the curve: [recall, precision, threshold]. */
function counts([recall, precision], positives, texts) {
  const hits = Math.round(recall * positives), said = precision > 0 ? Math.round(hits / precision) : 0;
  return { hits, missed: positives - hits, false: said - hits, right: texts - positives - (said - hits) };
}

function drawThreshold() {
  const { scores } = found, label = scores.positive ?? Object.keys(scores.curves ?? {})[0], curve = scores.curves?.[label];
  choice.section.hidden = !curve;
  if (!curve) return drawConfusion(null);
  const points = curve.points, chosen = scores.thresholds?.[label] ?? 0.5;
  // Texts are said from the chosen threshold on: the counts are those of the lowest point that is not below it.
  const above = points.reduce((best, [, , at], i) => (at >= chosen && (best < 0 || at < points[best][2]) ? i : best), -1);
  const start = Math.min(Number(state.cut ?? Math.max(0, above)), points.length - 1);
  const said = make("output"), facts = make("dl", { className: "facts quiet" }), chart = make("div");
  const slider = make("input", { type: "range", id: "cut", min: 0, max: points.length - 1, value: start,
    oninput: () => { keep({ cut: slider.value }); show(Number(slider.value)); } });
  const show = (i) => {
    const [recall, precision, at] = points[i], f1 = recall + precision ? (2 * recall * precision) / (recall + precision) : 0;
    said.textContent = number(at);
    facts.replaceChildren(...[["precision", precision], ["recall", recall], ["F1", f1], ["average precision", curve.average_precision]].map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, number(value)))));
    chart.replaceChildren(lineChart(`Precision and recall of ${label}`, [
      { name: "precision over recall", points: points.map(([x, y]) => [x, y]), colour: "--blue" },
      { name: "at this threshold", points: [[recall, precision]], colour: "--orange", dots: true },
    ], { x: "recall", y: "precision", low: 0, high: 1.02, left: 0, right: 1 }));
    drawConfusion(scores.labels.length === 2 ? counts(points[i], scores.by_class[label].texts, scores.texts) : null, label, at);
  };
  choice.body.replaceChildren(make("div", { className: "controls" }, make("label", { className: "field wide" }, `“${printable(label)}” is said from a probability of`, slider, said)),
    make("div", { className: "columns" }, chart, facts));
  show(start);
}

function drawConfusion(count, label, at) {
  const { scores } = found;
  let rows = scores.confusion ?? [];
  if (count) {
    const other = [count.right, count.false], own = [count.missed, count.hits];
    rows = scores.labels[1] === label ? [other, own] : [own.toReversed(), other.toReversed()];
  }
  confusion.section.hidden = !rows.length;
  confusion.text.textContent = `${whole(scores.texts)} held-out texts${count ? `, at a threshold of ${number(at)}` : ""}. Rows are the truth, columns what was said.`;
  const head = make("tr", {}, make("th", { scope: "col" }, "truth ↓  answer →"), scores.labels.map((name) => make("th", { scope: "col" }, printable(name))));
  const body = rows.map((row, truth) => {
    const total = Math.max(1, row.reduce((a, b) => a + b, 0));
    return make("tr", {}, make("th", { scope: "row" }, printable(scores.labels[truth])), row.map((value, n) => {
      const cell = make("td", {}, make("strong", {}, whole(value)), make("small", {}, percent(value / total)));
      cell.style.background = `rgba(var(${n === truth ? "--accent" : "--warm"}), ${0.05 + 0.35 * (value / total)})`;
      return cell;
    }));
  });
  confusion.body.replaceChildren(make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "Confusion matrix" },
    make("table", { className: "confusion" }, make("thead", {}, head), make("tbody", {}, body))));
}

function drawCalibration() {
  const { bins = [], calibration_error: error, temperature } = found.scores;
  calibration.section.hidden = !bins.length;
  if (!bins.length) return;
  calibration.body.replaceChildren(make("div", {}, lineChart("Share right over probability said", [
    { name: "as it should be", points: [[0, 0], [1, 1]], colour: "--soft", dash: "2 4", width: 1.5 },
    { name: "held-out texts", points: bins.map(({ said, right }) => [said, right]), colour: "--blue", dots: true },
  ], { x: "probability said", y: "share that was right", low: 0, high: 1.02, left: 0, right: 1 }),
  make("div", {}, make("dl", { className: "facts quiet" }, [["calibration error", number(error)], ["temperature chosen", number(temperature, 2)]].map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
  make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "Bins" }, make("table", {}, make("thead", {}, make("tr", {}, ["said", "right", "texts"].map((name) =>
    make("th", { scope: "col", className: "n" }, name)))), make("tbody", {}, bins.map(({ said, right, texts }) => make("tr", {}, [percent(said), percent(right), whole(texts)].map((value) => make("td", { className: "n" }, value)))))))))); 
}

function drawMistakes() {
  const list = (found.mistakes ?? []).slice(0, 12);
  mistakes.section.hidden = !found.mistakes;
  mistakes.body.replaceChildren(list.length ? make("div", { className: "cards" }, list.map((item) => make("div", { className: "card" }, make("p", {}, printable(item.text)),
    make("p", { className: "small" }, make("span", { className: "wrong" }, `✗ ${printable(item.answer) || "nothing"}`), ` with ${percent(item.probability)} · in truth ${printable(item.truth) || "nothing"}`))))
    : make("p", {}, "None: every held-out text was right."));
}

const parts = [live, choice, confusion, calibration, mistakes];
start(async () => {
  if (about.kind !== "classifier") {
    const known = about.models.find(({ kind }) => kind === "classifier");
    parts.slice(1).forEach(({ section }) => { section.hidden = true; });
    live.text.textContent = known ? "The chosen model is no classifier." : "None of the served models is a classifier: make one with pellucid finetune classify, and serve its folder.";
    live.body.replaceChildren(known ? make("button", { type: "button", id: "switch", className: "primary", onclick: () => { keep({ model: known.name, checkpoint: "" }); location.reload(); } }, `Look at ${printable(known.name)}`) : "");
    return;
  }
  live.section.hidden = false;
  await buildLive();
  found = await ask("classifier");
  parts.slice(1).forEach(({ section }) => { section.hidden = !found.found; });
  if (!found.found) return;
  drawThreshold();
  drawCalibration();
  drawMistakes();
});

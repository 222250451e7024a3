// Page 1: one text as words, characters, this model's tokens and GPT-2's; and how one word was merged.
import { make, mark, number, roving, visible, whole } from "./dom.js";
import { svg } from "./chart.js";
import { ask, keep, start, state, trying, view } from "./frame.js";

const ways = view("ways", "One text, four ways to cut it",
  "Choose a piece to see its bytes, and, where it is a byte pair, how its word was merged. A dot stands for a space.");
const piece = view("piece", "The piece", "", "half");
const tree = view("tree", "How the word was merged",
  "Single bytes below; each joint is a merge, numbered in the order in which it was made in this word. Frequent pairs were learnt first, so they are merged first.", "half");
let data = null;

function showWay(way) {
  const pick = (i) => choose(way, i);
  const buttons = way.tokens.map((token, i) => make("button", {
    type: "button", "data-item": "", className: `token p${i % 4}${token.id !== null && token.id === way.unknown_id ? " unknown" : ""}`,
    onclick: () => pick(i), "aria-label": `${way.title}, piece ${i + 1}: ${token.text}${token.id === null ? "" : `, id ${token.id}`}`,
  }, make("span", {}, visible(token.text)), token.id === null ? null : make("small", {}, String(token.id))));
  mark(buttons, 0);
  buttons.forEach((button) => button.setAttribute("aria-pressed", false));
  const facts = `${whole(way.count)} pieces · ${number(way.bytes_per_token ?? 0, 2)} bytes each` +
    (way.vocab_size ? ` · ${whole(way.vocab_size)} tokens known` : "");
  const group = make("div", { className: "tokens", role: "group", "aria-label": way.title }, buttons);
  roving(group, pick);
  return make("div", { className: "way", id: `way-${way.key}` }, make("h3", {}, way.title, make("small", {}, facts)), group);
}

async function choose(way, i) {
  document.querySelectorAll("#ways .token").forEach((button) => button.setAttribute("aria-pressed", false));
  mark([...document.querySelectorAll(`#way-${way.key} .token`)], i);
  keep({ way: way.key, piece: i });
  const token = way.tokens[i];
  const facts = [["as", way.title], ["id", token.id ?? "none: any vocabulary could number it"], ["bytes", token.hex || "none"],
    ["place in the text", `bytes ${token.start} to ${token.end}`]];
  piece.body.replaceChildren(make("p", { className: "verdict mono" }, visible(token.text)),
    make("dl", { className: "facts quiet" }, facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value))))));
  const word = (way.words ?? []).find(({ start, end }) => start <= token.start && token.end <= end);
  tree.section.hidden = !word;
  if (word) await trying(async () => drawTree(await ask("tree", { way: way.key, piece: word.text })));
}

const leaves = (node) => (node.parts ? node.parts.flatMap(leaves) : [node]);

/** Bytes in a row, above them the merges, on top the tokens. */
function drawTree(found) {
  const all = found.roots.flatMap(leaves), gap = 46, rise = 40;
  const height = (node) => (node.parts ? 1 + Math.max(...node.parts.map(height)) : 0);
  const top = Math.max(...found.roots.map(height));
  const width = Math.max(220, gap * all.length + 20), bottom = 40 + rise * top;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${bottom + 46}`, width, height: bottom + 46, role: "img", "data-whole": "",
    "aria-label": `Merge tree of ${found.piece}: ${found.roots.map((root) => root.text).join(", ")}` });
  let used = 0;
  const place = (node) => {
    if (!node.parts) {
      const x = 33 + gap * used++;
      drawing.append(svg("text", { x, y: bottom + 20, "text-anchor": "middle", class: "code" }, visible(node.text)));
      drawing.append(svg("text", { x, y: bottom + 36, "text-anchor": "middle", class: "soft" }, String(node.id)));
      return { x, y: bottom };
    }
    const [left, right] = node.parts.map(place), x = (left.x + right.x) / 2, y = bottom - rise * height(node);
    drawing.append(svg("path", { class: "wire", d: `M${left.x} ${left.y}V${y}H${right.x}V${right.y}` }));
    drawing.append(svg("circle", { cx: x, cy: y, r: 9, fill: "var(--raised)", stroke: "var(--soft)" }));
    drawing.append(svg("text", { x, y: y + 4, "text-anchor": "middle", "font-size": 11 },
      svg("title", {}, `merge number ${node.rank + 1} of the vocabulary`), String(node.step)));
    return { x, y };
  };
  for (const root of found.roots) {
    const { x, y } = place(root);
    drawing.append(svg("path", { class: "wire", d: `M${x} ${y - (root.parts ? 9 : 0)}V${y - 18}` }));
    drawing.append(svg("text", { x, y: y - 22, "text-anchor": "middle", class: "code", "font-weight": 700 }, visible(root.text)));
  }
  tree.body.replaceChildren(make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Merge tree" }, drawing), merges(found));
}

function merges(found) {
  const joints = (node) => (node.parts ? [...node.parts.flatMap(joints), node] : []);
  const rows = found.roots.flatMap(joints).sort((a, b) => a.step - b.step).map((node) =>
    make("li", {}, `${node.parts.map((part) => visible(part.text)).join(" + ")} → ${visible(node.text)}: merge ${whole(node.rank + 1)} of the vocabulary`));
  return rows.length ? make("ol", { className: "small mono" }, rows) : make("p", { className: "soft" }, "Nothing was merged: each byte stays by itself.");
}

start(async () => {
  data = await ask("tokens");
  ways.body.replaceChildren(...data.ways.map(showWay));
  const way = data.ways.find(({ key }) => key === state.way) ?? data.ways.find(({ key }) => key === "model");
  piece.section.hidden = tree.section.hidden = !way.tokens.length;
  if (way.tokens.length) await choose(way, Math.min(Number(state.piece) || 0, way.tokens.length - 1));
});

// Numbers as colours: strips for vectors, squares for matrices. Blue is above zero, orange below.
import { ink, make, number } from "./dom.js";

export const largest = (...rows) => Math.max(1e-9, ...rows.flat(3).map(Math.abs).filter(Number.isFinite));

const made = new Map(); // what a colour is made of → its shades
/** A colour in the 256 strengths that a pixel can have: thousands of cells are painted, and the browser reads each once. */
function shades(name) {
  const rgb = ink(name);
  if (!made.has(rgb)) made.set(rgb, Array.from({ length: 256 }, (_, strength) => `rgba(${rgb}, ${strength / 255})`));
  const all = made.get(rgb);
  return (strength) => all[Math.round(255 * Math.min(1, strength))];
}

/** A vector as a row of colours; `most` is the value of full colour. */
export function strip(values, most, label) {
  const canvas = make("canvas", { className: "strip", role: "img",
    "aria-label": `${label}: ${values.length} numbers, from ${number(Math.min(...values))} to ${number(Math.max(...values))}` });
  small(canvas, [values], signedPaint(most));
  canvas.onmousemove = (event) => {
    const x = Math.min(values.length - 1, Math.floor((event.offsetX / canvas.clientWidth) * values.length));
    canvas.title = `number ${x + 1}: ${number(values[x], 6)}`;
  };
  return canvas;
}

/** Names, strips and a number each, under each other. */
export function strips(rows, most = largest(rows.map((row) => row.values))) {
  return make("div", { className: "strips" }, rows.map(({ name, values, said }) =>
    make("div", {}, make("span", {}, name), strip(values, most, name), make("span", { className: "n" }, said ?? ""))));
}

export const legend = () => make("p", { className: "legend" },
  make("span", {}, make("span", { className: "key below" }), "below zero"), make("span", {}, make("span", { className: "key above" }), "above zero"),
  make("span", {}, "The stronger the colour, the farther from zero."));

/** A matrix without names, a cell a pixel; null and what a mask hides stay empty. */
export function small(canvas, rows, paint) {
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  rows.forEach((row, y) => row.forEach((value, x) => {
    const fill = paint(value, y, x);
    if (!fill) return;
    context.fillStyle = fill;
    context.fillRect(x, y, 1, 1);
  }));
}

/** Weights are from 0 to 1, and the small ones count, too: hence the root. */
export function weightPaint() {
  const accent = shades("--accent");
  return (weight, y, x) => (x > y || weight === null ? "" : accent(0.04 + 0.96 * Math.sqrt(weight)));
}

export function signedPaint(most) {
  const below = shades("--warm"), above = shades("--accent");
  return (value) => (value === null ? "" : (value < 0 ? below : above)(Math.abs(value) / most));
}

/** A square of numbers with the tokens on two sides; `row` is outlined, and `pick` told the cell under the pointer. */
export function heat(box, label, rows, names, paint, row, pick) {
  const canvas = make("canvas", { className: "heat", role: "img", "aria-label": label });
  box.replaceChildren(canvas);
  const context = canvas.getContext("2d"), scale = window.devicePixelRatio || 1, count = names.length;
  const size = count > 60 ? 9 : 12, font = `${size}px ${ink("--mono")}`;
  context.font = font;
  const labels = names.map((name) => ([...name].length > 11 ? [...name].slice(0, 10).join("") + "…" : name));
  const margin = Math.ceil(Math.max(...labels.map((one) => context.measureText(one).width))) + 8;
  const cell = Math.max(3, Math.min(32, Math.floor((Math.min(box.clientWidth || 600, 620) - margin) / count)));
  const side = margin + cell * count + 2;
  canvas.width = canvas.height = side * scale;
  canvas.style.width = canvas.style.height = `${side}px`;
  context.scale(scale, scale);
  context.font = font;
  context.textBaseline = "middle";
  const step = Math.ceil((size + 1) / cell);
  labels.forEach((one, i) => {
    if (i % step && i !== row) return;
    const middle = margin + (i + 0.5) * cell;
    context.fillStyle = ink(i === row ? "--ink" : "--soft");
    context.textAlign = "right";
    context.fillText(one, margin - 6, middle);
    context.save();
    context.translate(middle, margin - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(one, 0, 0);
    context.restore();
  });
  rows.forEach((values, y) => values.forEach((value, x) => {
    const fill = paint(value, y, x);
    if (!fill) return;
    context.fillStyle = fill;
    context.fillRect(margin + x * cell, margin + y * cell, cell > 4 ? cell - 1 : cell, cell > 4 ? cell - 1 : cell);
  }));
  context.strokeStyle = ink("--ink");
  context.strokeRect(margin - 0.5, margin + row * cell - 0.5, (row + 1) * cell, cell);
  const at = (event) => [event.offsetX, event.offsetY].map((place) => Math.floor((place - margin) / cell));
  canvas.onmousemove = (event) => { const [x, y] = at(event); if (y >= 0 && y < count && x >= 0 && x < count) pick(y, x, false); };
  canvas.onclick = (event) => { const [x, y] = at(event); if (y >= 0 && y < count) pick(y, x, true); };
}

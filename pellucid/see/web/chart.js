// Line charts as SVG: axes, a grid, lines with a legend, a band, levels.
import { make, printable } from "./dom.js";

/** An SVG element; all properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const NARROW = 34; // rem; below this a chart is drawn for a small screen

/** Round steps that cut `low` to `high` into about `count` parts. */
export function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1, base = 10 ** Math.floor(Math.log10(raw));
  const step = base * [1, 2, 5, 10].find((one) => one * base >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

export function brief(value) {
  const size = Math.abs(value);
  for (const [most, letter] of [[1e9, " B"], [1e6, " M"], [1e4, " k"]]) if (size >= most) return `${+(value / (letter === " k" ? 1e3 : most)).toPrecision(3)}${letter}`;
  if (size && size < 1e-3) return value.toExponential(0).replace("-", "−");
  return String(+value.toPrecision(3)).replace("-", "−");
}

/**
 * lines: [{ name, points: [[x, y]…], colour: "--blue", dash, width, opacity, dots }]
 * options: x, y (labels), zero, low, high (of y), left, right (of x), wholeX, band { name, points: [[x, low, high]…] },
 *          marks [{ x, name }], levels [{ name, y }]
 */
export function lineChart(label, lines, options = {}) {
  const narrow = innerWidth < 16 * NARROW, width = narrow ? 340 : 620, height = narrow ? 230 : 270;
  const left = 52, right = 14, top = options.y ? 26 : 12, bottom = 38;
  const all = [...lines.flatMap(({ points }) => points), ...(options.band?.points.flatMap(([x, low, high]) => [[x, low], [x, high]]) ?? [])];
  if (!all.length) return make("p", { className: "soft" }, "Nothing is there yet.");
  const levels = options.levels ?? [], lowest = Math.min(...levels.map(({ y }) => y)), ys = [...all.map(([, y]) => y), ...levels.map(({ y }) => y)];
  const x0 = options.left ?? Math.min(...all.map(([x]) => x)), x1 = Math.max(options.right ?? Math.max(...all.map(([x]) => x)), x0 + 1e-9);
  let y0 = options.low ?? (options.zero ? 0 : Math.min(...ys)), y1 = options.high ?? Math.max(...ys);
  if (options.low === undefined && !options.zero) y0 -= (levels.length ? 0.1 : 0.05) * (y1 - y0);
  if (options.high === undefined) y1 += 0.06 * (y1 - y0) || 1;
  const X = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const Y = (y) => height - bottom - ((Math.min(Math.max(y, y0), y1) - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, "data-whole": "" });
  for (const y of ticks(y0, y1, narrow ? 4 : 5)) drawing.append(svg("path", { class: "grid", d: `M${left} ${Y(y)}H${width - right}` }),
    svg("text", { x: left - 8, y: Y(y) + 4, "text-anchor": "end", class: "soft" }, brief(y)));
  for (const x of ticks(x0, x1, narrow ? 4 : 6)) if (!options.wholeX || Number.isInteger(+x.toFixed(6)))
    drawing.append(svg("text", { x: Math.min(X(x), width - 16), y: height - bottom + 18, "text-anchor": "middle", class: "soft" }, brief(x)));
  if (options.y) drawing.append(svg("text", { x: left, y: 12, class: "soft" }, options.y));
  if (options.x) drawing.append(svg("text", { x: width - right, y: height - 4, "text-anchor": "end", class: "soft" }, options.x));
  if (options.band?.points.length) {
    const { points } = options.band;
    const d = [...points.map(([x, , high]) => [x, high]), ...points.map(([x, low]) => [x, low]).reverse()].map(([x, y]) => `${X(x)} ${Y(y)}`).join("L");
    drawing.append(svg("path", { d: `M${d}Z`, fill: "var(--green)", "fill-opacity": 0.4 }));
  }
  for (const { y } of levels) drawing.append(svg("path", { class: "wire", "stroke-dasharray": "4 4", d: `M${left} ${Y(y)}H${width - right}` }));
  for (const { x, name } of options.marks ?? []) drawing.append(svg("path", { stroke: "var(--ink)", "stroke-width": 1.5, d: `M${X(x)} ${top}V${height - bottom}` }, svg("title", {}, name)));
  for (const { points: all, colour, dash = "none", width: thick = 2, opacity = 1, dots } of lines) {
    const stroke = `var(${colour})`; // what lies above the chart is left out, but for where a line leaves it
    const points = all.filter(([, y], i) => y <= y1 || all[i - 1]?.[1] <= y1 || all[i + 1]?.[1] <= y1);
    if (points.length > 1) drawing.append(svg("path", { d: `M${points.map(([x, y]) => `${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("L")}`, fill: "none", stroke,
      "stroke-width": thick, "stroke-dasharray": dash, "stroke-opacity": opacity, "stroke-linejoin": "round" }));
    if (dots || points.length === 1) for (const [x, y] of points) drawing.append(svg("circle", { cx: X(x), cy: Y(y), r: 3, fill: stroke }, svg("title", {}, `${brief(x)}: ${brief(y)}`)));
  }
  for (const { name, y } of levels) // over the lines, with an edge of paper; below the lowest level there is nothing else
    drawing.append(svg("text", { x: width - right, y: Y(y) + (y === lowest ? 14 : -5), "text-anchor": "end", class: "edged" }, printable(name)));
  return make("div", { className: "chart" }, keys(lines, options), drawing);
}

function keys(lines, options) {
  const named = lines.filter(({ name }) => name).map(({ name, colour, dash, width = 2, opacity = 1 }) => {
    const line = make("i", { className: width < 2 ? "thin" : "" });
    line.style.opacity = String(opacity);
    line.style.background = dash && dash !== "none" ? `repeating-linear-gradient(90deg, var(${colour}) 0 5px, transparent 5px 8px)` : `var(${colour})`;
    return make("li", {}, line, printable(name));
  });
  if (options.band) {
    const patch = make("i");
    patch.style.background = "var(--green)";
    patch.style.opacity = "0.3";
    patch.style.height = "9px";
    named.push(make("li", {}, patch, printable(options.band.name)));
  }
  return make("ul", { className: "keys" }, named);
}

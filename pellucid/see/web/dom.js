// Small helpers of every page. Whatever comes from a text or a model becomes a text node, never markup.

export const $ = (id) => document.getElementById(id);

/** An element: make("td", { className: "n" }, "text", otherElement). Names with a dash are attributes. */
export function make(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") Object.entries(value).forEach(([key, one]) => element.style.setProperty(key, one));
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const control = (c) => "\\x" + c.codePointAt(0).toString(16).padStart(2, "0");

/** Text of one token, with spaces, line ends and control characters that can be seen. */
export const visible = (text) =>
  text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥")
    .replace(/[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, control) || "∅";

/** Text of a line or more: it wraps as it is, but control characters are seen and never obeyed. */
export const printable = (text) =>
  text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, control);

export const short = (text, most = 12) => (text.length > most ? [...text].slice(0, most - 1).join("") + "…" : text);
export const number = (value, decimals = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(decimals).replace("-", "−");
export const whole = (value) => Math.round(value).toLocaleString("en");
export const percent = (p) => (p > 0 && p < 0.0005 ? "<0.1" : (100 * p).toFixed(1)) + "\u00a0%";

const palette = new Map(); // to ask for a style once for each strip would lay out the page anew each time
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => palette.clear());
/** A colour of the style sheet's palette: ink("--soft"); with an opacity: colour("--accent", 0.5). */
export function ink(name) {
  if (!palette.has(name)) palette.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return palette.get(name);
}
export const colour = (name, alpha) => `rgba(${ink(name)}, ${alpha})`;

/** Arrow keys move among the elements of a group that is one stop of the tab key. */
export function roving(group, choose, columns = 0) {
  group.addEventListener("keydown", (event) => {
    const items = [...group.querySelectorAll("[data-item]")], here = items.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns || 1, ArrowUp: -(columns || 1) }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? items.length - 1 : here + step;
    if (here < 0 || !(to >= 0 && to < items.length)) return;
    event.preventDefault();
    items[to].focus();
    choose(to);
  });
}

/** Mark the chosen one of a group: pressed, and the one that the tab key reaches. */
export function mark(items, chosen) {
  items.forEach((item, i) => {
    item.setAttribute("aria-pressed", i === chosen);
    item.tabIndex = i === chosen ? 0 : -1;
  });
}

/** A row of buttons of which one is chosen. */
export function choices(label, names, chosen, choose) {
  const buttons = names.map((name, i) =>
    make("button", { type: "button", "data-item": "", onclick: () => choose(i) }, String(name)));
  const group = make("div", { className: "row", role: "group", "aria-label": label }, make("span", {}, label), buttons);
  mark(buttons, chosen);
  roving(group, choose);
  return group;
}

/** A bar of which `share` is filled. */
export function bar(share, name = "") {
  const filled = make("i", { className: name });
  filled.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return make("div", { className: "bar", "aria-hidden": "true" }, filled);
}

/** A table from names of columns and rows of cells; a column whose name ends in | is of numbers. */
export function table(label, columns, rows) {
  const numbers = columns.map((name) => name.endsWith("|"));
  const head = columns.map((name, i) =>
    make("th", { scope: "col", className: numbers[i] ? "n" : "" }, name.replace("|", "") || make("span", { className: "hidden" }, "chart")));
  const body = rows.map(({ cells, ...properties }) => make("tr", properties, cells.map((cell, i) =>
    cell instanceof HTMLTableCellElement ? cell : make("td", { className: numbers[i] ? "n" : "" }, cell))));
  return make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": label },
    make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)));
}

/** Call `work` when nothing has asked for it for `wait` milliseconds. */
export function calmly(work, wait) {
  let timer = 0;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), wait); };
}

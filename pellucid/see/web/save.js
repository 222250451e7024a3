// Any view as a file: a PNG, an SVG, or an HTML page that works from a disk and loads nothing.
import { make } from "./dom.js";

const VARIABLES = ["--paper", "--raised", "--ink", "--soft", "--line", "--tint", "--blue", "--orange", "--green", "--purple",
  "--red", "--sky", "--accent", "--warm", "--s", "--m", "--l", "--xl", "--xxl", "--mono"];
const PAINT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-size",
  "font-family", "font-weight", "text-anchor", "dominant-baseline", "paint-order", "stroke-linejoin"];

export function saveMenu(title, text, body) {
  const kinds = { PNG: savePng, SVG: saveSvg, HTML: saveHtml };
  const menu = make("details", { className: "save" }, make("summary", { "aria-label": `Save: ${title}` }, "Save"));
  const buttons = Object.entries(kinds).map(([kind, save]) => make("button", {
    type: "button",
    onclick: async () => { menu.open = false; await save(title, text.textContent, body); },
  }, kind));
  menu.append(make("div", { className: "kinds" }, buttons));
  menu.onkeydown = (event) => {
    if (event.key === "Escape") { menu.open = false; menu.firstChild.focus(); }
  };
  return menu;
}

function download(title, kind, content) {
  const name = `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "")}.${kind}`;
  const address = URL.createObjectURL(content);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function styles() {
  const sheets = [...document.querySelectorAll("link[rel=stylesheet]")];
  return (await Promise.all(sheets.map(async (sheet) => (await fetch(sheet.href)).text()))).join("\n");
}

/** A copy of a view that stands by itself: canvases as pictures, without what only works on the server. */
function still(body) {
  const copy = body.cloneNode(true), drawn = copy.querySelectorAll("canvas");
  body.querySelectorAll("canvas").forEach((canvas, i) => {
    const picture = make("img", { src: canvas.toDataURL(), alt: canvas.getAttribute("aria-label") ?? "" });
    picture.className = canvas.className;
    picture.style.cssText = canvas.style.cssText;
    picture.style.width ||= `${canvas.clientWidth}px`;
    picture.style.height ||= `${canvas.clientHeight}px`;
    drawn[i].replaceWith(picture);
  });
  copy.querySelectorAll(".controls").forEach((element) => element.remove());
  copy.querySelectorAll("[tabindex]").forEach((element) => element.removeAttribute("tabindex"));
  return copy;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

async function saveHtml(title, text, body) {
  const main = make("main", {}, make("h1", {}, title), make("p", { className: "soft" }, text), still(body));
  const head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">' +
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">` +
    `<title>${escaped(title)}</title><style>${await styles()}</style>`;
  const page = `<!doctype html>\n<html lang="en"><head>${head}</head><body class="workbench saved">${main.outerHTML}</body></html>\n`;
  download(title, "html", new Blob([page], { type: "text/html" }));
}

/** The view as one SVG element: a chart as it is, anything else as XHTML inside of it. */
async function asSvg(body) {
  const root = getComputedStyle(document.documentElement);
  const chart = body.querySelector("svg[data-whole]");
  if (chart) {
    const copy = chart.cloneNode(true), parts = copy.querySelectorAll("*"), box = chart.viewBox.baseVal;
    chart.querySelectorAll("*").forEach((element, i) => {
      const own = getComputedStyle(element);
      for (const name of PAINT) parts[i].setAttribute(name, own.getPropertyValue(name));
      parts[i].removeAttribute("class");
    });
    const paper = document.createElementNS(copy.namespaceURI, "rect");
    for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: root.getPropertyValue("--paper").trim() }))
      paper.setAttribute(name, value);
    copy.prepend(paper);
    copy.setAttribute("width", box.width);
    copy.setAttribute("height", box.height);
    return { text: new XMLSerializer().serializeToString(copy), width: box.width, height: box.height };
  }
  const margin = 16, width = body.scrollWidth + 2 * margin, height = body.scrollHeight + 2 * margin;
  const frozen = VARIABLES.map((name) => `${name}:${root.getPropertyValue(name)}`).join(";");
  const css = `${await styles()}\n:root{${frozen}} .saved{padding:${margin}px;background:var(--paper);width:${width}px;min-height:${height}px}`;
  const inside = new XMLSerializer().serializeToString(make("div", { className: "workbench saved" }, still(body)));
  const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><style>${escaped(css)}</style>` +
    `<foreignObject width="100%" height="100%">${inside}</foreignObject></svg>`;
  return { text, width, height };
}

async function saveSvg(title, _text, body) {
  download(title, "svg", new Blob([(await asSvg(body)).text], { type: "image/svg+xml" }));
}

async function savePng(title, _text, body) {
  const { text, width, height } = await asSvg(body);
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await picture.decode();
  const canvas = make("canvas", { width: 2 * width, height: 2 * height });
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.drawImage(picture, 0, 0, width, height);
  canvas.toBlob((content) => download(title, "png", content));
}

// The map of the vocabulary: a dot for each token on a canvas that can be zoomed, dragged and searched.
import { colour, ink, make, visible } from "./dom.js";

const STEP = 40; // pixels that an arrow key moves the map

/** `choose` is told the id of the dot that is taken. */
export function vocabularyMap(choose) {
  const canvas = make("canvas", { className: "map", tabIndex: 0, role: "img",
    "aria-label": "Map of the vocabulary; plus and minus zoom, arrow keys move, the list beside it names the neighbours" });
  let data = { points: [], texts: [] }, inText = new Set(), taken = -1, near = new Set(), found = new Set();
  let view = { scale: 1, x: 0, y: 0 }, fit = { scale: 1, x: 0, y: 0 }, hover = -1;

  const place = ([x, y]) => [
    canvas.clientWidth / 2 + (x - fit.x) * fit.scale * view.scale + view.x,
    canvas.clientHeight / 2 - (y - fit.y) * fit.scale * view.scale + view.y,
  ];

  function draw() {
    const sharp = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * sharp;
    canvas.height = height * sharp;
    const context = canvas.getContext("2d");
    context.scale(sharp, sharp);
    const size = Math.min(4, 1.4 * Math.sqrt(view.scale));
    context.fillStyle = colour("--accent", 0.35);
    data.points.forEach((point) => {
      const [x, y] = place(point);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) return;
      context.fillRect(x - size / 2, y - size / 2, size, size);
    });
    context.font = `12px ${ink("--mono")}`;
    const named = [];
    const dot = (id, style, radius, name) => {
      if (!data.points[id]) return;
      const [x, y] = place(data.points[id]);
      context.fillStyle = style;
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
      const free = named.every(([a, b]) => Math.abs(a - x) > 52 || Math.abs(b - y) > 13);
      if (!name && !free) return;
      named.push([x, y]);
      context.fillStyle = ink("--ink");
      const text = visible(data.texts[id]), fits = x + radius + 3 + context.measureText(text).width < width;
      context.textAlign = fits ? "left" : "right"; // at the right edge it stands before its dot
      context.fillText(text, fits ? x + radius + 3 : x - radius - 3, y + 4);
    };
    dot(taken, ink("--red"), 5, true);
    if (hover >= 0) dot(hover, ink("--ink"), 4, true);
    near.forEach((id) => dot(id, ink("--orange"), 4, false));
    found.forEach((id) => dot(id, ink("--purple"), 4, false));
    inText.forEach((id) => dot(id, ink("--blue"), 3.5, false));
    if (view.scale > 6) data.points.forEach((point, id) => {
      const [x, y] = place(point);
      if (x > 0 && y > 0 && x < width && y < height) dot(id, colour("--accent", 0.6), 2, false);
    });
  }

  function measure() {
    const xs = data.points.map(([x]) => x).sort((a, b) => a - b), ys = data.points.map(([, y]) => y).sort((a, b) => a - b);
    const span = (values) => [values[Math.floor(values.length * 0.002)], values[Math.ceil(values.length * 0.998) - 1]];
    const [left, right] = span(xs), [low, high] = span(ys);
    fit = { x: (left + right) / 2, y: (low + high) / 2,
      scale: 0.92 * Math.min(canvas.clientWidth / Math.max(right - left, 1e-9), canvas.clientHeight / Math.max(high - low, 1e-9)) };
  }

  function nearest(event) {
    let best = -1, distance = 200;
    data.points.forEach((point, id) => {
      const [x, y] = place(point), away = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (away < distance) [best, distance] = [id, away];
    });
    return best;
  }

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const scale = Math.max(0.5, Math.min(200, view.scale * factor)), change = scale / view.scale;
    const [dx, dy] = [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2];
    view = { scale, x: dx - (dx - view.x) * change, y: dy - (dy - view.y) * change };
    draw();
  }

  let drag = null;
  canvas.onpointerdown = (event) => { drag = { x: event.offsetX, y: event.offsetY, far: 0 }; canvas.setPointerCapture(event.pointerId); };
  canvas.onpointermove = (event) => {
    if (!drag) {
      const at = nearest(event);
      if (at !== hover) { hover = at; draw(); }
      return;
    }
    const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
    drag = { x: event.offsetX, y: event.offsetY, far: drag.far + Math.abs(dx) + Math.abs(dy) };
    view = { ...view, x: view.x + dx, y: view.y + dy };
    draw();
  };
  canvas.onpointerup = (event) => {
    const id = drag && drag.far < 4 ? nearest(event) : -1;
    drag = null;
    if (id >= 0) choose(id);
  };
  canvas.onpointerleave = () => { hover = -1; draw(); };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); }, { passive: false });
  canvas.onkeydown = (event) => {
    const move = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] }[event.key];
    const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 }[event.key];
    if (!move && !factor) return;
    event.preventDefault();
    if (factor) return zoom(factor);
    view = { ...view, x: view.x + move[0], y: view.y + move[1] };
    draw();
  };

  return {
    canvas,
    zoom,
    reset: () => { view = { scale: 1, x: 0, y: 0 }; draw(); },
    show: (given, ids) => { data = given; inText = ids; measure(); draw(); },
    choose: (id, neighbours) => { taken = id; near = new Set(neighbours); draw(); },
    search: (text) => {
      const asked = text.toLowerCase();
      found = new Set(asked ? data.texts.map((one, id) => [one.toLowerCase().trim(), id]).filter(([one]) => one.includes(asked.trim()))
        .sort(([a], [b]) => a.length - b.length).map(([, id]) => id) : []);
      draw();
      return [...found];
    },
  };
}

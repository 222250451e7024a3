// The frame of every page: one text and one model, kept in the URL; asking for data; the views with their Save menus.
import { $, calmly, make, mark, printable, roving, visible, whole } from "./dom.js";
import { saveMenu } from "./save.js";

/** What is chosen, as the URL has it: model, checkpoint, text, and what each page adds (layer, head, token …). */
export const state = Object.fromEntries(new URLSearchParams(location.search));
/** The same as a whole number. */
export const chosen = (name, otherwise = 0) => (/^\d+$/.test(state[name] ?? "") ? Number(state[name]) : otherwise);
const KEPT = ["model", "checkpoint", "text", "layer", "head", "token"]; // what goes along from page to page

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value != null));

/** Change what is chosen; the URL follows, and nothing is drawn. */
export function keep(change) {
  for (const [name, value] of Object.entries(change)) {
    if (value === "" && name !== "text") delete state[name];
    else state[name] = String(value);
  }
  const asked = new URLSearchParams(state);
  history.replaceState(null, "", `${location.pathname}${asked.size ? "?" + asked : ""}`);
  const along = query(Object.fromEntries(KEPT.map((name) => [name, state[name]])));
  if ("text" in state) along.set("text", state.text);
  for (const link of document.querySelectorAll(".top nav a, #onward")) link.search = along.size ? `?${along}` : "";
}

const running = new Map();
let stale = true; // what is chosen has changed, and `about` does not know it yet
/** Give up all that was asked, and ask nothing more before `about` is new: its tokens must not meet another text's numbers. */
function giveUp() {
  stale = true;
  for (const control of running.values()) control.abort();
  running.clear();
}

/** The data of a view for what is chosen; an older question for the same view is given up. */
export async function ask(view, more = {}, key = view) {
  if (stale && view !== "about") throw new DOMException("given up", "AbortError");
  running.get(key)?.abort();
  const control = new AbortController();
  running.set(key, control);
  const asked = query({ ...state, ...more });
  if ("text" in { ...state, ...more }) asked.set("text", more.text ?? state.text);
  const answer = await fetch(`/data/${view}?${asked}`, { signal: control.signal });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error?.message ?? `the server answered ${answer.status}`);
  return body;
}

/** Show what went wrong, or nothing; a question that was given up is no problem. */
export function problem(error) {
  if (error?.name === "AbortError") return;
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
  if (error && !(error instanceof Error && error.message)) throw error;
}

/** Do something that asks for data; what goes wrong is shown. */
export async function trying(work) {
  try {
    await work();
    problem(null);
  } catch (error) {
    problem(error);
  }
}

let draw = async () => {};
/** All that the frame knows of the chosen model and text; filled by the first answer. */
export let about = null;

async function load() {
  giveUp();
  await trying(async () => {
    const found = await ask("about");
    [about, stale] = [found, false];
    fillChoice();
    $("note").textContent = about.note;
    await draw(about);
  });
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
}

/** What a run that trains has become since: its newest checkpoints, and what kind of model it is. */
export async function renew() {
  about = await ask("about", {}, "renew");
  fillChoice();
}

function fillChoice() {
  const model = $("model"), said = about.models.map(({ name, kind }) => `${printable(name)} (${kind})`);
  if (said.join("\n") !== [...model.options].map(({ text }) => text).join("\n"))
    model.replaceChildren(...about.models.map(({ name }, i) => new Option(said[i], name)));
  model.value = about.model;
  if (document.activeElement !== $("text")) $("text").value = state.text ?? about.text;
  grow();
  const steps = about.checkpoints, slider = $("checkpoint");
  $("timeline").hidden = !steps.length;
  slider.max = steps.length;
  const place = steps.findIndex(({ name }) => name === state.checkpoint);
  slider.value = place < 0 ? steps.length : place;
  sayStep();
}

function sayStep() {
  const step = about.checkpoints[$("checkpoint").value];
  const said = step ? `${whole(step.step)} steps` : "all its steps";
  $("step").textContent = said;
  $("checkpoint").setAttribute("aria-valuetext", said);
}

function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight + 2, 160)}px`;
}

/** Begin: `page` draws what `about` says, now and whenever text, model or checkpoint change. */
export function start(page) {
  draw = page;
  keep({});
  const list = document.querySelector(".top nav ol"), here = list.querySelector("[aria-current]");
  list.scrollLeft = here.offsetLeft - list.offsetLeft - (list.clientWidth - here.offsetWidth) / 2;
  const soon = calmly(load, 120);
  const changed = (change) => { keep({ ...change, more: "" }); giveUp(); };
  $("choice").onsubmit = (event) => event.preventDefault();
  $("text").oninput = () => { grow(); changed({ text: $("text").value, token: "" }); soon(); };
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); load(); }
  };
  $("model").onchange = () => {
    changed({ model: $("model").value, checkpoint: "", layer: "", head: "", off: "" });
    load();
  };
  $("checkpoint").oninput = () => {
    sayStep();
    changed({ checkpoint: about.checkpoints[$("checkpoint").value]?.name ?? "" });
    soon();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", load);
  let width = innerWidth;
  addEventListener("resize", calmly(() => {
    if (innerWidth === width) return; // a telephone's keyboard changes the height: what is typed into stays
    width = innerWidth;
    load();
  }, 150));
  return load();
}

/** A view: a heading, a sentence, a Save menu, and a body to draw into; "half" ones stand side by side. */
export function view(id, title, sentence = "", size = "") {
  const body = make("div", { className: "body" });
  const text = make("p", { className: "soft" }, sentence);
  const section = make("section", { id, className: `view ${size}`, "aria-labelledby": `${id}-title` },
    make("div", { className: "head" }, make("h2", { id: `${id}-title` }, title), saveMenu(title, text, body)), text, body);
  $("views").append(section);
  return { body, text, section };
}

/** The chosen token's place; the last one where none is chosen. */
export const place = () => Math.min(chosen("token", about.tokens.length - 1), about.tokens.length - 1);
export const token = (i) => visible(about.tokens[i].text);

/** The text's tokens as buttons; `choose` is told the place of the one that is taken. */
export function tokenRow(choose) {
  const take = (i) => { keep({ token: i }); mark(buttons, i); choose(i); };
  const buttons = about.tokens.map((piece, i) => make("button",
    { type: "button", className: `token p${i % 4}`, "data-item": "", onclick: () => take(i),
      "aria-label": `token ${i + 1}: ${piece.text}, id ${piece.id}` },
    make("span", {}, token(i)), make("small", {}, String(piece.id))));
  const row = make("div", { className: "tokens", role: "group", "aria-label": "Tokens; arrow keys move" }, buttons);
  mark(buttons, place());
  roving(row, take);
  return row;
}

// Page 8: a talk that streams, why each word was said, and which tokens of a training example are trained.
import { $, bar, make, mark, number, percent, printable, roving, visible, whole } from "./dom.js";
import { about, ask, chosen, keep, start, state, trying, view } from "./frame.js";

const talk = view("talk", "Talk", "Enter sends. The oranger a word of the answer, the less sure the model was of it.");
const why = view("why", "Why this word?", "The probability of the chosen word, and what else might have stood there.");
const training = view("mask", "What is trained", "Only marked tokens count in the loss: the words of the assistant, and the end-of-text behind them. The question is read, and never learnt.");
let messages = [], running = null; // what streams now, to be given up

/** Begin anew; an answer that still streams is given up, in the server, too. */
function forget() {
  running?.abort();
  [messages, running] = [[], null];
  talk.list?.replaceChildren();
  why.body.replaceChildren();
  why.section.hidden = true;
}

function buildTalk() {
  const box = make("textarea", { rows: 1, id: "question", maxLength: 4000, value: $("question")?.value ?? state.text ?? "", onkeydown: (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); send(); }
  } });
  const warmth = make("input", { type: "range", id: "warmth", min: 0, max: 1.5, step: 0.1, value: 0, oninput: () => { said.textContent = number(Number(warmth.value), 1); } });
  const said = make("output", {}, "0.0");
  talk.list = make("div", { className: "talk", role: "log", "aria-label": "The talk" });
  const button = (text, id, onclick, className = "") => make("button", { type: "button", id, onclick, className }, text);
  const send = () => trying(async () => {
    const question = box.value.trim();
    if (!question || running) return;
    box.value = "";
    const own = running = new AbortController();
    try {
      await answer(question, Number(warmth.value), own.signal);
    } catch (error) {
      if (!own.signal.aborted) box.value ||= question; // to be asked again
      throw error;
    } finally {
      if (running === own) running = null;
    }
  });
  talk.body.replaceChildren(talk.list, make("div", { className: "ask controls" }, make("label", {}, "Message", box), button("Send", "send", send, "primary")),
    make("div", { className: "controls" }, make("label", { className: "field" }, "Temperature", warmth, said),
      button("Forget the talk", "forget", forget)));
}

async function answer(question, temperature, signal) {
  const said = make("p", { className: "user" }, printable(question));
  const line = make("p", { className: "assistant", role: "group", "aria-label": "Answer; choose a word" });
  talk.list.append(said, line);
  const asked = [...messages, { role: "user", content: question }];
  try {
    const [text, words] = await stream(asked, temperature, line, signal);
    messages = [...asked, { role: "assistant", content: text }];
    const doubtful = words.reduce((least, { logprob }, i) => (logprob < words[least].logprob ? i : least), 0);
    if (words.length) explain(line, words, doubtful);
  } catch (error) {
    [said, line].forEach((element) => element.remove());
    throw error;
  }
}

/** The answer to a talk and its tokens, written into `line` as they come. */
async function stream(asked, temperature, line, signal) {
  const words = [], decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // the last token of a character has all of it
  const response = await fetch("/v1/chat/completions", { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify({
    model: about.model, messages: asked, stream: true, logprobs: true, top_logprobs: 8, temperature, max_tokens: 120 }) });
  if (!response.ok) throw new Error((await response.json()).error?.message ?? `the server answered ${response.status}`);
  let text = "";
  for await (const event of events(response.body)) {
    const piece = event.choices?.[0];
    if (event.error) throw new Error(event.error.message);
    if (!piece) continue;
    text += piece.delta?.content ?? "";
    for (const word of piece.logprobs?.content ?? []) {
      const place = words.push(word) - 1, said = decoder.decode(new Uint8Array(word.bytes), { stream: true });
      const button = make("button", { type: "button", className: "said", "data-item": "", tabIndex: place ? -1 : 0,
        onclick: () => explain(line, words, place) }, printable(said));
      if (!said) button.setAttribute("aria-label", visible(word.token));
      button.style.setProperty("--doubt", 0.55 * (1 - Math.exp(word.logprob)));
      line.append(button);
    }
    if (!words.length && text) line.textContent = printable(text);
  }
  signal.throwIfAborted();
  line.append(text ? printable(decoder.decode()) : make("span", { className: "soft" }, "(it said nothing)"));
  roving(line, (i) => explain(line, words, i));
  return [text, words];
}

/** Server-sent events as objects, as they come. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
  }
}

function explain(line, words, i) {
  const buttons = [...line.querySelectorAll(".said")], word = words[i];
  document.querySelectorAll(".said[aria-pressed=true]").forEach((button) => button.setAttribute("aria-pressed", false));
  mark(buttons, i);
  why.section.hidden = false;
  const own = Math.exp(word.logprob), others = word.top_logprobs.map(({ token, logprob }) => ({ token, p: Math.exp(logprob) }));
  if (!others.some(({ token }) => token === word.token)) others.push({ token: word.token, p: own });
  why.text.textContent = `“${visible(word.token)}” had a probability of ${percent(own)}. The model’s own probabilities, before any temperature:`;
  const rows = others.map(({ token, p }) => make("tr", { className: token === word.token ? "drawn" : "" }, make("td", {}, visible(token)), make("td", { className: "n" }, percent(p)), make("td", {}, bar(p))));
  why.body.replaceChildren(make("div", { className: "box", tabIndex: 0, role: "region", "aria-label": "Alternatives" }, make("table", { className: "words" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "token"), make("th", { scope: "col", className: "n" }, "probability"), make("th", { scope: "col" }, make("span", { className: "hidden" }, "as a bar")))), make("tbody", {}, rows))));
}

async function buildMask() {
  const first = await ask("examples", { number: chosen("example") });
  const field = (id, label, value) => {
    const box = make("textarea", { rows: 2, id, maxLength: 4000, value, oninput: () => trying(draw) });
    return [box, make("label", {}, label, box)];
  };
  const [instruction, one] = field("instruction", "Instruction", first.instruction ?? "What is the opposite of hot?");
  const [input, two] = field("input", "Input", first.input ?? "");
  const [output, three] = field("output", "Answer", first.output ?? "The opposite of hot is cold.");
  const shown = make("div", { "aria-live": "polite" });
  const draw = async () => {
    const found = await ask("mask", { instruction: instruction.value, input: input.value, output: output.value });
    shown.replaceChildren(make("p", { className: "mask" }, found.tokens.flatMap(({ text, trained }) => [make("span", { className: trained ? "trained" : "read" }, visible(text)), make("wbr")])),
      make("p", { className: "small soft" }, `${whole(found.trained)} of ${whole(found.count)} tokens are trained.`));
  };
  const said = make("output");
  const pick = make("input", { type: "range", id: "example", min: 0, max: Math.max(0, first.count - 1), value: first.number ?? 0, oninput: () => trying(async () => {
    keep({ example: pick.value });
    const next = await ask("examples", { number: pick.value });
    [instruction.value, input.value, output.value] = [next.instruction, next.input, next.output];
    said.textContent = `${whole(next.number + 1)} of ${whole(next.count)}`;
    await draw();
  }) });
  said.textContent = `${whole((first.number ?? 0) + 1)} of ${whole(first.count)}`;
  training.body.replaceChildren(first.count ? make("label", { className: "field wide controls" }, "Training example", pick, said) : make("p", { className: "soft small" }, "The training examples are no longer there; type one of your own."),
    make("div", { className: "columns" }, make("div", { className: "forms controls" }, one, two, three), shown));
  await draw();
}

start(async () => {
  $("timeline").hidden = true; // a talk is with the model as it is
  const able = about.kind === "assistant", who = `${about.model} (${about.kind})`, known = about.models.find(({ kind }) => kind === "assistant");
  talk.text.textContent = able ? "Enter sends. The oranger a word of the answer, the less sure the model was of it."
    : known ? "The chosen model was not taught to talk." : "None of the served models was taught to talk: make one with pellucid finetune instruct, and serve its folder.";
  if (talk.who !== who) forget(); // what one model said is not another's
  if (able && talk.who !== who) buildTalk(); // else what was typed stays
  if (!able) talk.body.replaceChildren(known ? make("button", { type: "button", id: "switch", className: "primary", onclick: () => { keep({ model: known.name, checkpoint: "" }); location.reload(); } }, `Talk with ${known.name}`) : "");
  talk.who = who;
  if (training.model !== about.model) await buildMask(); // else what was typed stays
  training.model = about.model;
});

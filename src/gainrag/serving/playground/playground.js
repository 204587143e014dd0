// The playground: asks this server and nothing else. What a state is, and how it is written into the address, is in
// state(), restore() and the two functions below them.

const $ = (id) => document.getElementById(id);
const STEPS = {
  retrieved: "retrieving", written: "writing a passage of its own", selected: "selecting", answered: "answering",
  answered_without: "answering without a passage", measured: "measuring gains",
  queue: "waiting", tokenization: "counting tokens", inference: "scoring", total: "in all",
};
let answers = false; // whether the server has an index and a language model

// --- passages as text ---------------------------------------------------------------------------------------------

export function parsePassages(text) {
  return text.split(/\n\s*\n/).map((block) => block.trim()).filter(Boolean).map((block) => {
    const [first, ...rest] = block.split("\n");
    if (first.startsWith("#") && rest.length) {
      return { title: first.replace(/^#+\s*/, ""), text: rest.join("\n").trim() };
    }
    return { title: "", text: block };
  });
}

export const printPassages = (passages) =>
  passages.map((p) => (p.title ? `# ${p.title}\n${p.text}` : p.text)).join("\n\n");

// --- the state in the address -------------------------------------------------------------------------------------

const state = () => ({ question: $("question").value, passages: $("passages").value, answers: $("answers").value });

function encode(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decode(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

function restore() {
  if (location.hash.length < 2) return false;
  try {
    const found = decode(location.hash.slice(1));
    for (const name of ["question", "passages", "answers"]) $(name).value = String(found[name] ?? "");
    return true;
  } catch {
    say("The address holds no state that can be read.", true);
    return false;
  }
}

// --- asking -------------------------------------------------------------------------------------------------------

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (response.ok) return response;
  const error = await response.json().catch(() => ({}));
  throw new Error(error.detail ?? `The server answered ${response.status}.`);
}

async function rank(question, passages) {
  const body = { query: question, documents: passages, raw_scores: true };
  const response = await post("rerank", body);
  const found = await response.json();
  const candidates = found.results.map((result) => ({
    ...passages[result.index], id: String(result.index), origin: "corpus",
    score: result.relevance_score, retrieval_rank: result.index + 1, retrieval_score: null, gain: null,
  }));
  const timings = Object.fromEntries(["queue", "tokenization", "inference", "total"].map(
    (name) => [name, Number(response.headers.get(`x-${name}-time`)) / 1000]));
  return { candidates, passages: [candidates[0]], timings, model: found.model, warnings: found.meta.warnings ?? [] };
}

async function ask(question, gold) {
  const body = { question, without: true, stream: true, ...(gold.length ? { answers: gold } : {}) };
  const response = await post("answer", body);
  for await (const [event, data] of events(response.body)) {
    if (event === "error") throw new Error(data.detail);
    if (event === "result") return data;
    say(`${sentence(STEPS[event])}: done.`);
  }
  throw new Error("The server ended without an answer.");
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const parts = Object.fromEntries(block.split("\n").map((line) => {
        const at = line.indexOf(": ");
        return [line.slice(0, at), line.slice(at + 2)];
      }));
      yield [parts.event, JSON.parse(parts.data)];
    }
  }
}

// --- showing ------------------------------------------------------------------------------------------------------

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

function say(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", failed);
}

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function bar(label, value, values, kind = "") {
  const known = values.filter((v) => v !== null && v !== undefined);
  const low = Math.min(...known), high = Math.max(...known);
  const row = make("div", `score ${kind}`);
  const track = make("div", "track"), fill = make("div", "fill");
  track.setAttribute("aria-hidden", "true"); // the number beside it says the same
  // The lowest one is short and not nothing: a bar that is not there looks like a score that is not there.
  fill.style.width = `${high > low ? 4 + 96 * (value - low) / (high - low) : 100}%`;
  track.append(fill);
  row.append(make("span", "", label), track, make("span", "number", value.toFixed(3)));
  return row;
}

function show(found) {
  const after = found.candidates;
  const before = after.filter((c) => c.retrieval_rank !== null && c.retrieval_rank !== undefined)
    .toSorted((a, b) => a.retrieval_rank - b.retrieval_rank);
  const place = new Map(after.map((c, i) => [c, i + 1]));
  const chosen = new Set(found.passages.map((p) => p.id));
  const list = (id, candidates, draw) => $(id).replaceChildren(...candidates.map((c) => {
    const item = make("li", "candidate");
    item.classList.toggle("chosen", chosen.has(c.id));
    item.dataset.id = c.id;
    const details = make("details"), summary = make("summary");
    summary.append(make("strong", "", c.title || c.text.slice(0, 60)), " ");
    details.append(summary, make("p", "", c.text));
    item.append(details);
    draw(item, summary, c);
    return item;
  }));
  list("before", before, (item, summary, c) => {
    summary.append(make("span", "place", `${c.retrieval_rank}., then ${place.get(c)}.`));
    if (c.retrieval_score !== null) {
      item.append(bar("retriever", c.retrieval_score, before.map((other) => other.retrieval_score)));
    }
  });
  list("after", after, (item, summary, c) => {
    const was = c.origin === "generated" ? "written by the model" : `was ${c.retrieval_rank}.`;
    const read = chosen.has(c.id) ? ", chosen" : "";
    summary.append(make("span", "place", `${place.get(c)}., ${was}${read}`));
    item.append(bar("selector", c.score, after.map((other) => other.score)));
    if (c.gain !== null && c.gain !== undefined) {
      item.append(bar("true gain", c.gain, after.map((other) => other.gain), "gain"));
    }
  });
  const own = after.find((c) => c.origin === "generated");
  $("pseudo").hidden = !own;
  $("pseudo-text").textContent = own?.text ?? "";
  $("answer").hidden = found.answer === undefined;
  $("with").textContent = found.answer || "(nothing)";
  $("without").textContent = found.answer_without || "(nothing)";
  $("without-row").hidden = found.answer_without === null || found.answer_without === undefined;
  $("timings").replaceChildren(...Object.entries(found.timings).map(
    ([step, seconds]) => make("li", "", `${STEPS[step] ?? step}: ${(1000 * seconds).toFixed(0)} ms`)));
  const notes = [...(found.warnings ?? [])];
  if (found.pseudo_skipped) notes.push("The model wrote no passage: a retrieved one scored high enough.");
  if (found.gain_without !== null && found.gain_without !== undefined) {
    notes.push(`The gain of no passage is ${found.gain_without.toFixed(3)}: passages above it help.`);
  }
  $("warnings").replaceChildren(...notes.map((note) => make("li", "", note)));
  $("results").hidden = false;
}

// The same passage in the other list is marked while one is pointed at or has the focus.
function mark(event) {
  const id = event.target.closest?.(".candidate")?.dataset.id;
  for (const item of document.querySelectorAll(".candidate")) {
    item.classList.toggle("near", id !== undefined && item.dataset.id === id);
  }
}

// --- what people do -----------------------------------------------------------------------------------------------

async function send() {
  const question = $("question").value.trim(), passages = parsePassages($("passages").value);
  if (!question) return say("Write a question first.", true);
  if (!passages.length && !answers) return say("Paste passages first: this server has no index.", true);
  history.replaceState(null, "", `#${encode(state())}`);
  $("send").disabled = true;
  say("Working …");
  const began = performance.now();
  try {
    const gold = $("answers").value.split("|").map((answer) => answer.trim()).filter(Boolean);
    const found = passages.length ? await rank(question, passages) : await ask(question, gold);
    show(found);
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    say(`${found.candidates.length} candidates, ranked by ${found.model} in ${seconds} s.`);
  } catch (error) {
    say(error.message, true);
  } finally {
    $("send").disabled = false;
  }
}

const label = () => {
  $("send").textContent = $("passages").value.trim() || !answers ? "Rank the passages" : "Ask the index";
};

async function share() {
  history.replaceState(null, "", `#${encode(state())}`);
  try {
    await navigator.clipboard.writeText(location.href);
    say("The address is copied.");
  } catch {
    say("The address of this page now holds this state: copy it from there.");
  }
}

async function start() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
  });
  $("share").addEventListener("click", share);
  $("passages").addEventListener("input", label);
  for (const kind of ["mouseover", "mouseout", "focusin", "focusout"]) {
    document.addEventListener(kind, (event) => mark(kind.endsWith("out") ? { target: document } : event));
  }
  const [ready, examples] = await Promise.all(["ready", "examples"].map(async (path) => (await fetch(path)).json()));
  answers = ready.answers;
  $("answering").hidden = $("index-help").hidden = !answers;
  $("server").textContent = `Selector: ${Object.keys(ready.models).join(", ")}.`;
  examples.forEach((example, i) => $("example").append(new Option(example.question, i)));
  $("example").addEventListener("change", () => {
    const example = examples[$("example").value];
    if (!example) return;
    $("question").value = example.question;
    $("passages").value = printPassages(example.passages);
    $("answers").value = example.answers.join(" | ");
    label();
  });
  const restored = restore();
  label();
  document.body.dataset.ready = "true"; // for whoever waits for it, such as a test
  if (restored) send();
}

start().catch((error) => say(`The page could not start: ${error.message}`, true));

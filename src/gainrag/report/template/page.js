"use strict";
// The list of questions. Text is only ever set as text, a page of questions at a time, and a question's inside when it
// is opened.
(async () => {
  const at = (id) => document.getElementById(id);
  const PER_PAGE = 20;
  const SAME = 1e-9;  // scores nearer than this are one score

  async function unpacked() {
    const bytes = Uint8Array.from(atob(at("data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  let roles, questions;
  at("status").textContent = "Unpacking the questions …";
  try {
    ({ roles, questions } = await unpacked());
  } catch (error) {
    at("status").textContent = typeof DecompressionStream === "undefined"
      ? "This browser cannot unpack the questions: Chrome 80, Firefox 113, Safari 16.4 or later can. report.json has them, too."
      : `The questions of this page are damaged (${error}). report.json has them, too.`;
    at("filters").hidden = at("pages").hidden = true;
    return;
  }
  const systems = questions.length ? Object.keys(questions[0].systems) : [];
  let shown = [];
  let page = 0;

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function options(select, choices, chosen) {
    select.replaceChildren(...choices.map(([value, text]) => new Option(text, value, false, value === chosen)));
  }

  const percent = (value) => (100 * value).toFixed(0);
  const difference = (q) => q.systems[roles.gainrag].mean - q.systems[at("baseline").value].mean;
  const outcome = (q) => { const d = difference(q); return d > SAME ? "win" : d < -SAME ? "loss" : "tie"; };

  // What is searched in: put together once, when it is first needed.
  function haystack(q) {
    q.haystack ??= [
      q.id, q.question, ...q.answers,
      ...Object.values(q.systems).map((s) => s.prediction),
      ...q.passages.flatMap((p) => [p.title, p.text ?? ""]),
    ].join("\n").toLowerCase();
    return q.haystack;
  }

  function filter() {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const dataset = at("dataset").value;
    const found = questions.filter((q) =>
      (!dataset || q.dataset === dataset) && words.every((word) => haystack(q).includes(word)));
    const counts = { win: 0, loss: 0, tie: 0 };
    for (const q of found) counts[outcome(q)] += 1;
    const wanted = at("outcome").value;
    options(at("outcome"), [
      ["", `all (${found.length})`], ["win", `wins (${counts.win})`], ["loss", `loses (${counts.loss})`],
      ["tie", `ties (${counts.tie})`],
    ], wanted);
    shown = wanted ? found.filter((q) => outcome(q) === wanted) : found;
    page = 0;
    render();
  }

  function render() {
    const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    at("status").textContent = `${shown.length} of ${questions.length} questions`;
    at("page").textContent = `page ${page + 1} of ${pages}`;
    at("previous").disabled = page === 0;
    at("next").disabled = page === pages - 1;
    at("list").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(row));
  }

  function row(q) {
    const details = make("details", "q");
    details.dataset.id = q.id;
    const summary = make("summary");
    const kind = outcome(q);
    const d = Math.round(100 * difference(q));
    const sign = { win: "▲ +", loss: "▼ ", tie: "= " }[kind];
    const badge = make("span", `badge ${kind}`, `${sign}${d || 0}`);
    badge.title = `${kind}: ${roles.gainrag} minus ${at("baseline").value}, mean(contains, F1) in percent`;
    summary.append(badge, make("span", "text", q.question), make("span", "where", q.dataset));
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(body(q));
    });
    return details;
  }

  function body(q) {
    const part = make("div", "body");
    part.append(make("h3", "", "Gold answers"), make("p", "", q.answers.join(" | ")));
    part.append(make("h3", "", "Answers of the systems"), answers(q));
    const measured = q.passages.some((p) => p.gain !== null);
    part.append(make("h3", "", measured ? "Candidates, highest true gain first" : "Candidates, as they were retrieved"));
    const order = q.passages.map((_, i) => i).sort((a, b) =>
      (q.passages[b].gain ?? -Infinity) - (q.passages[a].gain ?? -Infinity) || a - b);
    // A bar is the place between the least and the highest of the question.
    const gains = range(q.passages.map((p) => p.gain));
    const scores = range(q.passages.map((p) => p.score));
    let rank = 0;
    const ranks = q.passages.map((p) => (p.generated || !p.candidate ? null : (rank += 1)));
    part.append(...order.map((i) => candidate(q, i, ranks[i], gains, scores)));
    return part;
  }

  function answers(q) {
    const scroll = make("div", "scroll");
    const table = make("table");
    const head = make("tr");
    for (const title of ["system", "said", "contains", "F1"]) head.append(make("th", "", title));
    const thead = make("thead");
    thead.append(head);
    const tbody = make("tbody");
    for (const name of systems) {
      const { prediction, contains, f1 } = q.systems[name];
      const tr = make("tr", name === roles.gainrag ? "accent" : "");
      tr.append(make("th", "", name), make("td", "", prediction || "(nothing)"));
      tr.append(make("td", `n ${contains ? "win" : ""}`, contains ? "yes" : "no"), make("td", "n", percent(f1)));
      tbody.append(tr);
    }
    table.append(thead, tbody);
    scroll.append(table);
    return scroll;
  }

  function range(values) {
    const known = values.filter((value) => value !== null);
    return [Math.min(...known), Math.max(...known)];
  }

  function candidate(q, i, rank, gains, scores) {
    const passage = q.passages[i];
    const readers = systems.filter((name) => q.systems[name].read.includes(i));
    const box = make("div", `candidate${readers.includes(roles.gainrag) ? " read" : ""}`);
    const head = make("div", "head");
    head.append(make("b", "", passage.generated ? "Pseudo-passage" : passage.title || "(no title)"));
    const origin = passage.generated ? "written by the model"
      : rank === null ? "no candidate, read by another system" : `retrieved at ${rank}`;
    head.append(make("span", "note", origin));
    if (passage.holds) head.append(make("span", "holds", "holds an answer"));
    if (readers.length) head.append(make("span", "note", `read by ${readers.join(", ")}`));
    box.append(head);
    const bars = make("div", "bars");
    if (passage.gain !== null) bars.append(...bar("true gain", passage.gain, gains, ""));
    if (passage.score !== null) bars.append(...bar("selector", passage.score, scores, " scored"));
    box.append(bars);
    if (passage.text !== undefined) box.append(make("p", "excerpt", passage.text));
    return box;
  }

  function bar(label, value, [low, high], kind) {
    const outer = make("div", `bar${kind}`);
    const inner = make("i");
    inner.style.width = `${high > low ? 3 + 97 * (value - low) / (high - low) : 100}%`;
    outer.append(inner);
    return [make("span", "", label), outer, make("span", "", value.toFixed(2))];
  }

  // A link to one question: #q=ID.
  function follow() {
    if (!location.hash.startsWith("#q=")) return;
    const id = decodeURIComponent(location.hash.slice(3));
    at("search").value = at("dataset").value = at("outcome").value = "";
    filter();
    const place = shown.findIndex((q) => q.id === id);
    if (place < 0) return;
    page = Math.floor(place / PER_PAGE);
    render();
    const details = at("list").children[place % PER_PAGE];
    details.open = true;
    details.scrollIntoView();
    details.firstElementChild.focus({ preventScroll: true });
  }

  options(at("dataset"), [["", "all"], ...[...new Set(questions.map((q) => q.dataset))].sort().map((d) => [d, d])], "");
  options(at("baseline"), systems.filter((s) => s !== roles.gainrag).map((s) => [s, s]), roles.baseline);
  options(at("outcome"), [["", "all"]], "");
  let waiting;
  at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  for (const id of ["dataset", "baseline", "outcome"]) at(id).addEventListener("change", filter);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("previous").addEventListener("click", () => { page -= 1; render(); at("status").scrollIntoView(); });
  at("next").addEventListener("click", () => { page += 1; render(); at("status").scrollIntoView(); });
  addEventListener("hashchange", follow);
  filter();
  follow();
})();

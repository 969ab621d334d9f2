"use strict";
// The flips explorer: lists, filters and opens the items whose answers changed.
(function ({ $, make, fixed }) {
  const source = $("flips-data");
  if (!source || !$("explorer")) return;
  const data = JSON.parse(source.textContent);
  const [LOST, GAINED, CHANGED, SAME] = [0, 1, 2, 3];
  const MARKS = ["▼", "▲", "◆", "="];
  const WORDS = ["right → wrong", "wrong → right", "another answer", "unchanged"];
  const PAGE = 20;

  const entries = data.rows.map((row, place) => {
    const item = data.items[row[1]];
    const [task, group, metric] = data.tasks[item[0]];
    return {
      place, variant: row[0], task, group, metric, key: item[1], question: item[2], choices: item[3],
      gold: item[4][0], goldText: item[4][1], before: item[5], beforeScores: item[6], prompt: item[7],
      direction: row[2], after: row[3], afterScores: row[4], beforeMargin: row[5], margin: row[6],
      beforeText: item[8] || "", afterText: row[7] || "", text: null,
    };
  });
  const address = (entry) => [data.variants[entry.variant], entry.task, entry.key].map(encodeURIComponent).join("/");
  const haystack = (entry) => {
    if (entry.text === null) {
      entry.text = [entry.question, entry.key, entry.task, entry.before, entry.after, entry.beforeText, entry.afterText, ...entry.choices].join("\n").toLowerCase();
    }
    return entry.text;
  };

  const controls = {
    search: $("flip-search"), variant: $("flip-variant"), task: $("flip-task"),
    subject: $("flip-subject"), direction: $("flip-direction"), sort: $("flip-sort"),
  };

  function fill(select, first, values) {
    select.replaceChildren(make("option", { value: "" }, first));
    for (const [value, label] of values) select.append(make("option", { value }, label));
  }

  const label = ({ task, group }) => (task.startsWith(group + "_") ? task.slice(group.length + 1).replaceAll("_", " ") : task);
  const unique = (values) => [...new Set(values)];
  fill(controls.variant, "All variants", unique(entries.map((e) => e.variant)).map((v) => [v, data.variants[v]]));
  fill(controls.task, "All tasks", unique(entries.map((e) => e.group)).map((g) => [g, g]));

  function fillSubjects() {
    const group = controls.task.value;
    const subjects = unique(entries.filter((e) => e.group === group && e.task !== group).map((e) => e.task));
    fill(controls.subject, "All subjects", subjects.sort().map((task) => [task, label({ task, group })]));
    controls.subject.disabled = subjects.length === 0;
  }

  const ORDERS = {
    decided: (a, b) => a.margin - b.margin,
    moved: (a, b) => (a.margin - a.beforeMargin) - (b.margin - b.beforeMargin),
    close: (a, b) => Math.abs(a.margin) - Math.abs(b.margin),
    task: (a, b) => a.task.localeCompare(b.task) || a.key.localeCompare(b.key, undefined, { numeric: true }),
  };

  function matching() {
    const words = controls.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { variant, task, subject, direction } = controls;
    const kept = entries.filter((e) =>
      (direction.value === "" ? e.direction !== SAME : e.direction === Number(direction.value)) &&
      (variant.value === "" || e.variant === Number(variant.value)) &&
      (task.value === "" || e.group === task.value) &&
      (subject.value === "" || e.task === subject.value) &&
      words.every((word) => haystack(e).includes(word)));
    return kept.sort((a, b) => ORDERS[controls.sort.value](a, b) || a.place - b.place);
  }

  let page = 0;
  let found = [];

  function choiceTable(entry) {
    const head = make("tr", {}, ...["", "Choice", "Baseline", data.variants[entry.variant]].map((label, place) =>
      make("th", { scope: "col", class: place > 1 ? "number" : false }, label)));
    const body = entry.choices.map((choice, place) => {
      const name = String(place);
      const notes = [];
      if (name === entry.gold) notes.push("right answer");
      if (name === entry.before) notes.push("baseline's answer");
      if (name === entry.after) notes.push("this variant's answer");
      return make("tr", { class: name === entry.gold ? "gold" : false },
        make("th", { scope: "row" }, name === entry.gold ? "✓" : "", make("span", { class: "unseen" }, String.fromCharCode(65 + (place % 26)))),
        make("td", {}, make("span", { class: "verbatim" }, choice), notes.length ? make("span", { class: "note" }, notes.join(", ")) : null),
        make("td", { class: "number" + (name === entry.before ? " chosen" : "") }, fixed(entry.beforeScores[place], 3)),
        make("td", { class: "number" + (name === entry.after ? " chosen" : "") }, fixed(entry.afterScores[place], 3)));
    });
    return make("div", { class: "scroll" }, make("table", { class: "choices" },
      make("caption", {}, "Log-probability of each choice, in nats" +
        (entry.metric.startsWith("acc_norm") ? "; this task divides it by the choice's length before it chooses" : "")), make("thead", {}, head), make("tbody", {}, ...body)));
  }

  function answers(entry) {
    return make("dl", { class: "facts" },
      make("dt", {}, "Right answer"), make("dd", { class: "verbatim" }, entry.goldText || entry.gold),
      make("dt", {}, "Baseline's answer"), make("dd", { class: "verbatim" }, entry.before),
      make("dt", {}, "This variant's answer"), make("dd", { class: "verbatim" }, entry.after));
  }

  function texts(entry) {
    if (!entry.beforeText && !entry.afterText) return null;
    const side = (name, text) => make("div", {},
      make("h4", {}, name), make("pre", { class: "written", tabindex: "0" }, text));
    return make("div", { class: "texts" },
      side("Baseline", entry.beforeText || entry.before),
      side(data.variants[entry.variant], entry.afterText || entry.after));
  }

  function prompt(entry) {
    if (entry.prompt < 0) return make("p", { class: "note" }, "The whole prompt is not embedded here; it is kept in the run.");
    if (!data.prompts[entry.prompt]) return null;
    const details = make("details", { class: "prompt" }, make("summary", {}, "The whole prompt, with its examples"));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) {
        details.append(make("pre", { tabindex: "0" }, data.prompts[entry.prompt] + entry.question));
      }
    });
    return details;
  }

  function body(entry) {
    const margins = entry.choices.length
      ? make("p", { class: "note" }, entry.direction === SAME
        ? `Lead of the answer over the next choice: ${fixed(entry.beforeMargin, 3)} nats for the baseline, ${fixed(entry.margin, 3)} for this variant.`
        : `Baseline's answer less this variant's answer: ${fixed(entry.beforeMargin, 3)} nats for the baseline, ${fixed(entry.margin, 3)} for this variant.`)
      : null;
    const link = make("a", { href: "#item=" + address(entry), class: "permalink" }, "Link to this item");
    return make("div", { class: "flip-body" },
      entry.question ? make("pre", { class: "question", tabindex: "0" }, entry.question) : make("p", { class: "note" }, "The text of this item is not stored."),
      entry.choices.length ? choiceTable(entry) : answers(entry), texts(entry), margins, prompt(entry), make("p", {}, link));
  }

  function card(entry) {
    const first = entry.question.trim().split("\n").filter(Boolean).slice(-2).join(" ") || entry.key;
    const name = data.variants[entry.variant];
    const summary = make("summary", {},
      make("span", { class: "direction d" + entry.direction }, make("span", { "aria-hidden": "true" }, MARKS[entry.direction] + " "), WORDS[entry.direction]),
      make("span", { class: "who" }, name.length > 40 ? name.slice(0, 24) + "…" + name.slice(-14) : name),
      make("span", { class: "where" }, `${label(entry)} · ${entry.key}`),
      make("span", { class: "excerpt" }, first.slice(0, 220)),
      make("span", { class: "margin" }, entry.choices.length ? fixed(entry.margin, 2) + " nats" : ""));
    const details = make("details", { class: "flip" }, summary);
    details.entry = entry;
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(entry));
    });
    return make("li", {}, details);
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    $("flip-list").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(card));
    const first = found.length ? page * PAGE + 1 : 0;
    $("flip-count").textContent = found.length
      ? `${first} to ${Math.min(found.length, (page + 1) * PAGE)} of ${found.length} items`
      : "No item matches.";
    $("flip-page").textContent = `Page ${page + 1} of ${pages}`;
    $("flip-back").disabled = page === 0;
    $("flip-next").disabled = page === pages - 1;
  }

  function update() {
    found = matching();
    page = 0;
    draw();
  }

  function turn(step) {
    page += step;
    draw();
    $("explorer").scrollIntoView({ block: "start" });
  }

  function openLinked() {
    if (!location.hash.startsWith("#item=")) return;
    const wanted = location.hash.slice("#item=".length);
    const entry = entries.find((e) => address(e) === wanted);
    $("flip-lost").hidden = Boolean(entry);
    if (!entry) return void $("flips").scrollIntoView();
    for (const name of ["search", "variant", "task", "subject"]) controls[name].value = "";
    fillSubjects();
    controls.direction.value = entry.direction === SAME ? String(SAME) : "";
    found = matching();
    page = Math.floor(found.indexOf(entry) / PAGE);
    draw();
    for (const details of $("flip-list").querySelectorAll("details.flip")) {
      if (details.entry !== entry) continue;
      details.open = true;
      details.querySelector("summary").focus();
      details.scrollIntoView({ block: "start" });
    }
  }

  controls.search.form.addEventListener("submit", (event) => event.preventDefault());
  let waiting = 0;
  controls.search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
  controls.task.addEventListener("change", () => { fillSubjects(); update(); });
  for (const name of ["variant", "subject", "direction", "sort"]) controls[name].addEventListener("change", update);
  $("flip-back").addEventListener("click", () => turn(-1));
  $("flip-next").addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", openLinked);

  fillSubjects();
  $("explorer").hidden = false;
  update();
  openLinked();
})(page);

"use strict";
// The explorer: items grouped by how they went in every variant; filters that stand in the address.
(function ({ $, make, fixed, address, swatch, reference, itemParts }) {
  const source = $("flips-data");
  if (!source || !$("explorer")) return;
  const data = JSON.parse(source.textContent);
  const SIGNS = { 1: "✓", 0: "✗", "~": "~", ".": "·" };
  const SAID = { 1: "right", 0: "wrong", "~": "answered", ".": "not scored" };
  const KINDS = ["lost", "gained", "changed", "same"];
  const ARROWS = ["▼", "▲", "◆", "="];
  const WORDS = ["right → wrong", "wrong → right", "another answer", "unchanged"];
  const PAGE = 20, CHIPS = 10;
  const names = data.variants;
  const short = (name) => (name.length > 40 ? name.slice(0, 24) + "…" + name.slice(-14) : name);
  let base = data.baseline;
  const chosenBase = () => (names.includes(reference.name) ? names.indexOf(reference.name) : data.baseline);

  const items = data.items.map((row, place) => {
    const [task, group, metric, way] = data.tasks[row[0]];
    return {
      place, task, group, metric, way, key: row[1], question: row[2], choices: row[3], gold: row[4][0],
      goldText: row[4][1], prompt: row[5], marks: row[6], answers: row[7], differences: row[8] || [],
      lengths: row[9] || [], texts: row[10] || [], words: null, raw: null, changes: null,
    };
  });
  const itemAddress = (item) => [item.task, item.key].map(encodeURIComponent).join("/");
  const label = ({ task, group }) => (task.startsWith(group + "_") ? task.slice(group.length + 1).replaceAll("_", " ") : task);

  function haystack(item) {
    if (item.words === null) {
      item.words = [item.question, item.key, item.task, ...item.answers, ...item.texts, ...item.choices].join("\n").toLowerCase();
    }
    return item.words;
  }

  // Log-likelihoods in nats by variant; the data hold the first variant's, and the others less those.
  function scores(item) {
    if (item.raw === null) {
      const first = item.differences.findIndex((row) => row.length);
      item.raw = item.differences.map((row, variant) => row.map((value, choice) => {
        const from = variant === first ? 0 : item.differences[first][choice];
        return value === null || from === null ? null : (value + from) / 1000;
      }));
    }
    return item.raw;
  }

  // For each variant an index into KINDS, against the variant that is compared with; -1 without an answer.
  function changes(item) {
    if (item.changes === null) {
      const before = item.marks[base];
      item.changes = names.map((_, v) => {
        const mark = item.marks[v];
        if (v === base || mark === "." || before === ".") return -1;
        if (mark !== before && mark !== "~" && before !== "~") return mark === "0" ? 0 : 1;
        return item.answers[v] === item.answers[base] ? 3 : 2;
      });
    }
    return item.changes;
  }

  // The scores that decide: divided by the choices' lengths where those decided.
  const divides = (item) => item.lengths.length > 0;
  function deciding(item, variant) {
    const row = scores(item)[variant];
    if (!row || !divides(item)) return row;
    return row.map((value, choice) => (value === null || !item.lengths[choice] ? null : value / item.lengths[choice]));
  }
  const UNITS = { characters: "nats a character", bytes: "nats a byte" };
  const BRIEF = { characters: "nats/char", bytes: "nats/byte" };
  const unit = (item) => (divides(item) ? UNITS[item.way] : "nats");

  // The reference's answer less this variant's, by the score that decides; unchanged: the lead over the next; null where
  // no score tells, as of texts that were written.
  function known(item, variant, by) {
    const row = deciding(item, by);
    const [before, after] = [item.answers[base], item.answers[variant]];
    if (!row || row[before] == null) return null;
    if (before === after) return row[before] - Math.max(...row.filter((value, place) => value !== null && String(place) !== before));
    return row[after] == null ? null : row[before] - row[after];
  }
  const gap = (item, variant, by) => known(item, variant, by) ?? 0;

  // Nats and nats a character are no one unit, and tasks differ: over several tasks gaps are compared as multiples of
  // what is typical of theirs, the median gap of the answers that changed.
  const scale = (item) => `${item.group} ${unit(item)}`;
  let typical = null;
  function typicals() {
    const sizes = new Map();
    for (const item of items) changes(item).forEach((kind, v) => {
      const size = kind < 0 || kind === 3 ? 0 : Math.abs(gap(item, v, v));
      if (!size) return;
      if (!sizes.has(scale(item))) sizes.set(scale(item), []);
      sizes.get(scale(item)).push(size);
    });
    return new Map([...sizes].map(([name, found]) => {
      const sorted = Float64Array.from(found).sort(), middle = sorted.length >> 1;
      return [name, sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2];
    }));
  }
  function standardised(item, amount) {
    typical ??= typicals();
    return known(item, item.lead, item.lead) === null ? Infinity : amount / (typical.get(scale(item)) || 1);
  }

  const controls = {
    q: $("flip-search"), variant: $("flip-variant"), task: $("flip-task"),
    subject: $("flip-subject"), change: $("flip-direction"), sort: $("flip-sort"),
  };
  let pattern = names.map(() => "?");

  function fill(select, first, values) {
    select.replaceChildren(make("option", { value: "" }, first));
    for (const [value, text] of values) select.append(make("option", { value }, text));
  }
  const unique = (values) => [...new Set(values)];
  function fillVariants() {
    const rows = [...document.querySelectorAll("#decision [data-variant]")].map((row) => row.dataset.variant);
    const ordered = [...names].sort((a, b) => rows.indexOf(a) - rows.indexOf(b));
    fill(controls.variant, "All variants", ordered.filter((name) => name !== names[base]).map((name) => [name, short(name)]));
  }
  fill(controls.task, "All tasks", unique(items.map((e) => e.group)).map((g) => [g, g]));
  function fillSubjects() {
    const group = controls.task.value;
    const subjects = unique(items.filter((e) => e.group === group && e.task !== group).map((e) => e.task));
    fill(controls.subject, "All subjects", subjects.sort().map((task) => [task, label({ task, group })]));
    controls.subject.disabled = subjects.length === 0;
  }

  const counted = (n) => `${n} item${n === 1 ? "" : "s"}`;

  // --- which items, in which order -----------------------------------------------------------------
  function matching() {
    const words = controls.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const variant = names.indexOf(controls.variant.value);
    const change = KINDS.indexOf(controls.change.value);
    const fits = (kind) => (change < 0 ? kind >= 0 && kind < 3 : kind === change);
    const wanted = pattern.map((mark, v) => [mark, v]).filter(([mark]) => mark !== "?");
    const whole = wanted.length === names.length;
    return items.filter((e) =>
      wanted.every(([mark, v]) => e.marks[v] === mark) &&
      (whole && change < 0 && variant < 0 ? true
        : variant < 0 ? (change === 3 ? changes(e).every((kind) => kind === 3 || kind < 0) : changes(e).some(fits))
          : fits(changes(e)[variant])) &&
      (controls.task.value === "" || e.group === controls.task.value) &&
      (controls.subject.value === "" || e.task === controls.subject.value) &&
      words.every((word) => haystack(e).includes(word)));
  }

  // The variant that an item is ranked by: the chosen one, else that whose change is the most decided.
  function leading(item) {
    const chosen = names.indexOf(controls.variant.value);
    if (chosen >= 0) return chosen;
    let best = -1, least = Infinity;
    changes(item).forEach((kind, v) => {
      if (kind < 0) return;
      const rank = (kind === 3 ? 1e6 : 0) + gap(item, v, v);
      if (rank < least) [best, least] = [v, rank];
    });
    return best < 0 ? base : best;
  }

  const RANKS = {
    decided: (e) => gap(e, e.lead, e.lead),
    moved: (e) => gap(e, e.lead, e.lead) - gap(e, e.lead, base),
    close: (e) => Math.abs(gap(e, e.lead, e.lead)),
  };

  let found = [], page = 0, tally = new Map(), mixed = false;

  function order() {
    const sort = controls.sort.value;
    const rank = RANKS[sort] || RANKS.decided;
    for (const e of found) { e.lead = leading(e); e.rank = standardised(e, rank(e)); }
    mixed = sort !== "task" && new Set(found.filter((e) => e.rank < Infinity).map(scale)).size > 1;
    $("flip-unit").hidden = !mixed;
    const byRank = (a, b) => a.rank - b.rank || a.place - b.place;
    if (sort === "task") {
      const collator = new Intl.Collator(undefined, { numeric: true });
      found.sort((a, b) => collator.compare(a.task, b.task) || collator.compare(a.key, b.key));
    } else if (sort === "pattern") {
      const differ = (marks) => new Set(marks.replaceAll(".", "")).size > 1;
      const places = new Map([...tally].sort((a, b) => differ(b[0]) - differ(a[0]) || b[1] - a[1]).map(([marks], place) => [marks, place]));
      found.sort((a, b) => places.get(a.marks) - places.get(b.marks) || byRank(a, b));
    } else found.sort(byRank);
  }

  // --- patterns -----------------------------------------------------------------------------------
  const marked = (marks) => make("span", { class: "marks", "aria-hidden": "true" },
    ...[...marks].map((mark, v) => make("span", { class: "m" + mark, title: `${names[v]}: ${SAID[mark]}` }, SIGNS[mark])));

  function summed(marks) {
    const before = marks[base];
    const others = [...marks].map((mark, v) => [mark, v]).filter(([, v]) => v !== base);
    const told = [["lost", "1", "0"], ["gained", "0", "1"]].map(([verb, from, to]) => {
      const who = others.filter(([mark]) => before === from && mark === to);
      if (!who.length) return null;
      if (who.length === 1) return `${verb} by ${short(names[who[0][1]])}${others.length > 1 ? " only" : ""}`;
      return `${verb} by ${who.length === others.length ? "all" : who.length}`;
    }).filter(Boolean);
    return told.join(", ") || { 1: "right in all", 0: "wrong in all" }[others.every(([mark]) => mark === before || mark === ".") && before] || "";
  }

  function drawTris() {
    const NEXT = { "?": "1", 1: "0", 0: "?", "~": "?", ".": "?" };
    const SHOWN = { "?": "any", ...SIGNS };
    $("flip-tris").replaceChildren(make("span", { class: "note" }, "Pattern"), ...names.map((name, v) => {
      const said = pattern[v] === "?" ? "any answer" : SAID[pattern[v]];
      const button = make("button", { type: "button", class: "tri m" + pattern[v], "aria-label": `${name}: ${said}`, title: name },
        swatch(v), short(name) + " ", make("span", { class: "state" }, SHOWN[pattern[v]]));
      button.addEventListener("click", () => {
        pattern[v] = NEXT[pattern[v]];
        update();
        $("flip-tris").querySelectorAll("button")[v].focus();
      });
      return button;
    }));
  }

  function drawChips() {
    const whole = pattern.join("");
    const ranked = [...tally].filter(([marks]) => new Set(marks.replaceAll(".", "")).size > 1).sort((a, b) => b[1] - a[1]);
    const alone = ranked.filter(([marks]) => / only$/.test(summed(marks)) && !summed(marks).includes(","));
    const shown = unique([...ranked.slice(0, CHIPS), ...alone.slice(0, CHIPS)]);
    $("flip-patterns").replaceChildren(...(whole.includes("?") ? shown : []).map(([marks, n]) => {
      const words = summed(marks);
      const button = make("button", { type: "button", class: "chip", "data-marks": marks, "aria-label": `${words || marks}: ${counted(n)}` },
        marked(marks), words ? make("span", {}, words) : null, make("span", { class: "n" }, String(n)));
      button.addEventListener("click", () => { pattern = [...marks]; update(); $("flip-tris").querySelector("button").focus(); });
      return button;
    }));
  }

  // --- one item -----------------------------------------------------------------------------------
  const columns = (item) => {
    const chosen = names.indexOf(controls.variant.value);
    return names.map((_, v) => v).filter((v) => item.marks[v] !== "." && (chosen < 0 || v === chosen || v === base));
  };

  const { choiceTable, answers, texts, prompt } = itemParts({
    names, prompts: data.prompts, SIGNS, SAID, WORDS, short, label, scores, changes, columns,
    base: () => base, told: () => (base === data.baseline ? "baseline" : "compared with"),
  });

  function body(item) {
    const place = found.indexOf(item);
    const step = (text, by) => {
      const button = make("button", { type: "button", class: "button", disabled: !found[place + by] }, text);
      button.addEventListener("click", () => open(found[place + by]));
      return button;
    };
    const lead = item.lead ?? leading(item);
    const told = (by) => fixed(gap(item, lead, by), divides(item) ? 4 : 3);
    const note = item.choices.length && lead !== base
      ? make("p", { class: "note" }, changes(item)[lead] === 3
        ? `Lead of the answer over the next choice: ${told(base)} ${unit(item)} for ${short(names[base])}, ${told(lead)} for ${short(names[lead])}.`
        : `Score of ${short(names[base])}'s answer minus that of ${short(names[lead])}'s: ${told(base)} ${unit(item)} in ${short(names[base])}, ${told(lead)} in ${short(names[lead])}.`)
      : null;
    return make("div", { class: "flip-body" },
      item.question ? make("pre", { class: "question", tabindex: "0" }, item.question) : make("p", { class: "note" }, "The text of this item is not stored."),
      item.choices.length ? choiceTable(item) : answers(item), texts(item), note, prompt(item),
      make("div", { class: "steps" }, step("Previous item", -1), step("Next item", 1),
        make("a", { href: address.of("flips", { item: itemAddress(item) }), class: "permalink" }, "Link to this item")));
  }

  // A gap in its unit, and where tasks are mixed what it is ranked by.
  function size(item, kind) {
    const value = known(item, item.lead, item.lead);
    if (value === null) return [];
    const what = controls.sort.value === "moved" ? "moved " : "";
    return [
      make("span", { class: "one", title: unit(item) }, `${fixed(value, divides(item) ? 4 : 2)} ${divides(item) ? BRIEF[item.way] : "nats"}`), " ",
      mixed ? make("span", { class: "one typical" }, `${what}${fixed(Math.abs(item.rank), 1)}× typical`)
        : make("span", {}, kind === 3 ? "ahead of the next" : `to ${short(names[base])}'s answer`),
    ];
  }

  function card(item) {
    const first = item.question.trim().split("\n").filter(Boolean).slice(-2).join(" ") || item.key;
    const kind = changes(item)[item.lead];
    const chosen = controls.variant.value !== "";
    const words = chosen || controls.sort.value === "pattern" || /^[~.]/.test(item.marks[base]) ? WORDS[kind] || "" : summed(item.marks) || WORDS[kind] || "";
    const summary = make("summary", {},
      marked(item.marks),
      make("span", { class: "direction d" + kind }, make("span", { "aria-hidden": "true" }, (ARROWS[kind] || "") + " "), / in all$/.test(words) ? WORDS[kind] || words : words),
      make("span", { class: "where" }, `${label(item)} · ${item.key}`),
      make("span", { class: "excerpt" }, first.slice(0, 220)),
      make("span", { class: "gap" }, ...size(item, kind)));
    const details = make("details", { class: "flip" }, summary);
    details.item = item;
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(item));
    });
    return make("li", {}, details);
  }

  // --- drawing ------------------------------------------------------------------------------------
  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const shown = found.slice(page * PAGE, (page + 1) * PAGE);
    const grouped = controls.sort.value === "pattern";
    const rows = [];
    shown.forEach((item, place) => {
      if (grouped && (place === 0 || shown[place - 1].marks !== item.marks)) {
        const words = summed(item.marks);
        rows.push(make("li", { class: "group" }, marked(item.marks), make("span", {}, words), make("span", { class: "note" }, `${counted(tally.get(item.marks))}`)));
      }
      rows.push(card(item));
    });
    $("flip-list").replaceChildren(...rows);
    const first = found.length ? page * PAGE + 1 : 0;
    const held = document.querySelector("[data-part=counts]").dataset;
    const partly = Number(held.shown) < Number(held.total)
      ? `, in which this page holds ${held.shown} answers that differ from ${short(names[base])}'s, of the run's ${held.total}` : "";
    $("flip-count").textContent = found.length
      ? `${first} to ${Math.min(found.length, (page + 1) * PAGE)} of ${counted(found.length)}${partly}`
      : "No item matches.";
    $("flip-page").textContent = `Page ${page + 1} of ${pages}`;
    $("flip-back").disabled = page === 0;
    $("flip-next").disabled = page === pages - 1;
    $("flip-clear").hidden = Object.keys(state()).length === 0;
  }

  // Another variant is compared with: what changed, against it; a filter for it would leave nothing. Whatever else the
  // address asks for is still to be read where it has just been followed, and stays.
  function rebase() {
    if (base === chosenBase()) return;
    base = chosenBase();
    for (const item of items) item.changes = null;
    typical = null;
    const kept = controls.variant.value;
    fillVariants();
    controls.variant.value = kept === names[base] ? "" : kept;
    show();
    const asked = address.read("flips");
    if (asked?.variant === names[base]) address.write("flips", { ...asked, variant: "" });
  }

  function find() {
    found = matching();
    tally = new Map();
    for (const { marks } of found) tally.set(marks, (tally.get(marks) || 0) + 1);
    order();
    page = 0;
  }

  function show() {
    find();
    drawTris();
    drawChips();
    draw();
  }

  function update() {
    show();
    address.write("flips", state());
  }

  function turn(step) {
    page += step;
    draw();
    $("flip-count").scrollIntoView({ block: "start" });
  }

  function open(item) {
    page = Math.floor(found.indexOf(item) / PAGE);
    draw();
    address.write("flips", { ...state(), item: itemAddress(item) });
    for (const details of $("flip-list").querySelectorAll("details.flip")) {
      if (details.item !== item) continue;
      details.open = true;
      details.querySelector("summary").focus({ preventScroll: true });
      details.scrollIntoView({ block: "start" });
    }
  }

  // --- the address --------------------------------------------------------------------------------
  function state() {
    const made = {};
    for (const [name, node] of Object.entries(controls)) if (node.value && !(name === "sort" && node.value === "pattern")) made[name] = node.value;
    if (pattern.some((mark) => mark !== "?")) made.pattern = pattern.join("");
    return made;
  }

  function restore() {
    const asked = address.read("flips");
    if (asked === null) return;
    for (const name of ["q", "variant", "task", "change", "sort"]) controls[name].value = asked[name] || (name === "sort" ? "pattern" : "");
    for (const name of ["variant", "task", "change", "sort"]) if (controls[name].selectedIndex < 0) controls[name].selectedIndex = 0;
    fillSubjects();
    controls.subject.value = asked.subject || "";
    if (controls.subject.selectedIndex < 0) controls.subject.selectedIndex = 0;
    pattern = asked.pattern?.length === names.length ? [...asked.pattern] : names.map(() => "?");
    const item = asked.item && items.find((e) => itemAddress(e) === asked.item);
    show();
    if (item && !found.includes(item)) {
      for (const name of ["q", "variant", "task", "subject"]) controls[name].value = "";
      controls.change.value = changes(item).every((kind) => kind === 3 || kind < 0) ? "same" : "";
      pattern = names.map(() => "?");
      fillSubjects();
      show();
    }
    $("flip-lost").hidden = !asked.item || Boolean(item);
    if (item) open(item);
    else $(Object.keys(asked).length ? "explorer" : "flips").scrollIntoView();
  }

  controls.q.form.addEventListener("submit", (event) => event.preventDefault());
  let waiting = 0;
  controls.q.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
  controls.task.addEventListener("change", () => { fillSubjects(); update(); });
  for (const name of ["variant", "subject", "change", "sort"]) controls[name].addEventListener("change", update);
  $("flip-clear").addEventListener("click", () => {
    for (const name of ["q", "variant", "task", "subject", "change"]) controls[name].value = "";
    controls.sort.value = "pattern";
    pattern = names.map(() => "?");
    fillSubjects();
    update();
    controls.q.focus();
  });
  $("flip-back").addEventListener("click", () => turn(-1));
  $("flip-next").addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", restore);

  reference.heard.push(rebase);
  reference.placed.push(() => {
    const kept = controls.variant.value;
    fillVariants();
    controls.variant.value = kept;
    draw();
  });
  base = chosenBase();
  fillVariants();
  fillSubjects();
  $("explorer").hidden = false;
  show();
  restore();
})(page);

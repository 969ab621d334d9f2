"use strict";
// One item of the explorer: its choices with their scores, or its answers, what was written, the whole prompt.
// `base` gives the variant that is compared with, `told` what it is called beside the others.
page.itemParts = function ({ names, prompts, SIGNS, SAID, WORDS, short, label, scores, changes, columns, base, told }) {
  const { make, fixed, swatch } = page;
  const DIVISORS = { characters: "the choice's length in characters", bytes: "the choice's length in bytes" };

  function bar(value, low, high) {
    const NS = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(NS, "svg"), rect = document.createElementNS(NS, "rect");
    for (const [key, entry] of [["class", "score-bar"], ["viewBox", "0 0 100 6"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"]]) svg.setAttribute(key, entry);
    rect.setAttribute("width", String(high > low ? 4 + (96 * (value - low)) / (high - low) : 100));
    rect.setAttribute("height", "6");
    svg.append(rect);
    return svg;
  }

  function choiceTable(item) {
    const shown = columns(item), raw = scores(item);
    const normal = item.way in DIVISORS;
    const deciding = (v, c) => (raw[v]?.[c] == null ? null : normal ? (item.lengths[c] ? raw[v][c] / item.lengths[c] : null) : raw[v][c]);
    const all = shown.flatMap((v) => item.choices.map((_, c) => deciding(v, c))).filter((x) => x != null && Number.isFinite(x));
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const head = make("tr", {}, make("th", { scope: "col" }, "Choice"), ...shown.map((v) => make("th", { scope: "col", class: "number" },
      swatch(v), short(names[v]), make("small", {}, v === base() ? told() : WORDS[changes(item)[v]] || ""))));
    const rows = item.choices.map((choice, c) => {
      const right = String(c) === item.gold || item.gold.split(",").includes(String(c));
      const cells = shown.map((v) => {
        const value = deciding(v, c), taken = item.answers[v] === String(c);
        const plain = raw[v]?.[c];
        return make("td", { class: `number v${v % 12}` + (taken ? " chosen" : ""), title: plain == null ? false : `${names[v]}: ${fixed(plain, 3)} nats` },
          make("span", {}, fixed(value, normal ? 4 : 3)), value == null ? null : bar(value, low, high),
          normal ? make("small", {}, fixed(plain, 3)) : null, taken ? make("small", { class: "taken" }, "chosen") : null);
      });
      return make("tr", { class: right ? "gold" : false }, make("th", { scope: "row" },
        right ? make("span", { class: "right" }, "✓ right answer") : null,
        make("span", { class: "unseen" }, String.fromCharCode(65 + (c % 26)) + ": "), make("span", { class: "verbatim" }, choice)), ...cells);
    });
    const how = normal
      ? `What decides is the log-probability of a choice divided by ${DIVISORS[item.way]} (${item.metric}); below it the log-probability itself, in nats.`
      : item.way === "plain" ? "What decides is the log-probability of a choice, in nats."
        : `Log-probability of each choice, in nats. The score that decided (${item.metric}) is not stored.`;
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Scores of the choices, ${label(item)} ${item.key}` }, make("table", { class: "choices" },
      make("caption", {}, make("span", {}, how + " Bars run from this item's lowest score to its highest, in the colour of their variant, the chosen one full.")), make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  function answers(item) {
    const rows = columns(item).map((v) => make("tr", {}, make("th", { scope: "row" }, swatch(v), short(names[v])),
      make("td", { class: "m" + item.marks[v] }, `${SIGNS[item.marks[v]]} ${SAID[item.marks[v]]}`), make("td", { class: "verbatim" }, item.answers[v])));
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Answers, ${label(item)} ${item.key}` }, make("table", {},
      make("caption", {}, make("span", {}, "Right answer: ", make("span", { class: "verbatim" }, item.goldText || item.gold))),
      make("tbody", {}, ...rows)));
  }

  function texts(item) {
    const shown = columns(item);
    if (!shown.some((v) => item.texts[v])) return null;
    return make("div", { class: "texts" }, ...shown.map((v) => make("div", {},
      make("h4", {}, swatch(v), short(names[v]), make("span", { class: "m" + item.marks[v] }, " " + SIGNS[item.marks[v]])),
      make("pre", { class: "written", tabindex: "0" }, item.texts[v] || item.answers[v]))));
  }

  function prompt(item) {
    if (item.prompt < 0) return make("p", { class: "note" }, "The whole prompt is not embedded here; it is kept in the run.");
    if (!prompts[item.prompt]) return null;
    const details = make("details", { class: "prompt" }, make("summary", {}, "The whole prompt, with its examples"));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) {
        details.append(make("pre", { tabindex: "0" }, prompts[item.prompt] + item.question));
      }
    });
    return details;
  }

  return { choiceTable, answers, texts, prompt };
};

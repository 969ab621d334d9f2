// "Compare with": the decision table, the reasons and the table of scores against another variant. Every number and
// word was computed with the page; this puts them in place, and the page's own back when its baseline is chosen.
(function () {
  const select = document.getElementById("reference");
  const source = document.getElementById("versus-data");
  if (!select || !source) return;
  const data = JSON.parse(source.textContent);
  const minus = (text) => String(text).replace(/(^|[^\w.-])-(?=[\d])/g, "$1\u2212").replace(/\bx(?=\d)/g, "\u00d7");
  const typed = (text) => (text === "-" || text === "" || text == null ? "–" : minus(text));
  const SVG = "http://www.w3.org/2000/svg";

  function draw(tag, attributes, ...children) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function element(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  }

  // --- the page's own tables, kept to be put back -------------------------------------------------
  const decision = document.querySelector("#decision tbody");
  const reasons = document.getElementById("why");
  const summary = document.querySelector("table.summary tbody");
  const ticks = document.querySelector("#decision .ticks");
  const kept = [decision, reasons, summary, ticks].filter(Boolean).map((node) => [node, [...node.childNodes].map((child) => child.cloneNode(true))]);
  const restore = () => kept.forEach(([node, children]) => node.replaceChildren(...children.map((child) => child.cloneNode(true))));

  // --- drawings -----------------------------------------------------------------------------------
  function axis(span, scale) {
    const [left, right] = scale.margins;
    const upright = (name, at) => draw("line", { class: name, x1: at + "%", x2: at + "%", y1: 0, y2: 20 });
    const node = draw("svg", { class: "axis", "aria-hidden": "true", focusable: "false" },
      draw("rect", { class: "within", x: left + "%", y: 0, width: right - left + "%", height: 20 }),
      upright("edge", left), upright("edge", right), upright("zero", scale.zero));
    if (!span) return node;
    const [low, high, dot, beyond] = span;
    node.append(draw("line", { class: "span", x1: low + "%", x2: high + "%", y1: 10, y2: 10 }));
    if (!(beyond && (dot <= 0 || dot >= 100))) node.append(draw("circle", { class: "at", cx: dot + "%", cy: 10, r: 4 }));
    if (beyond) node.append(draw("text", { class: "beyond", x: (beyond < 0 ? 0 : 100) + "%", y: 14, "text-anchor": beyond < 0 ? "start" : "end" }, beyond < 0 ? "◀" : "▶"));
    return node;
  }

  function bar([zero, low, high, dot]) {
    const scaling = { "vector-effect": "non-scaling-stroke" };
    return draw("svg", { class: "bar", viewBox: "0 0 100 16", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
      draw("line", { class: "zero", x1: zero, x2: zero, y1: 1, y2: 15, ...scaling }),
      draw("line", { class: "span", x1: low, x2: high, y1: 8, y2: 8, ...scaling }),
      draw("rect", { class: "at", x: dot - 1, y: 3, width: 2, height: 10 }));
  }

  // --- one reference in place of another ----------------------------------------------------------
  const rowOf = (body, name) => [...body.querySelectorAll("[data-variant]")].find((row) => row.dataset.variant === name);

  function put(row, name, ...children) {
    const cell = row.querySelector(`[data-${name}]`);
    if (cell) cell.replaceChildren(...children);
    return cell;
  }

  function decide(chosen) {
    const rows = chosen.entries.map(([place, status, mark, word, , delta, interval, span, worst, ratio, by]) => {
      const row = rowOf(decision, data.variants[place]);
      row.className = "s-" + status;
      put(row, "verdict", element("span", "", mark), " " + minus(word), ...(by ? [" ", element("small", "by", "by " + minus(by))] : [])).firstChild.setAttribute("aria-hidden", "true");
      put(row, "delta", typed(delta) + " ", element("small", "range", interval ? minus(interval) : "")).title = minus(interval);
      put(row, "span", ...(span && chosen.scale ? [axis(span, chosen.scale)] : []));
      put(row, "worst", typed(worst));
      put(row, "ratio", typed(ratio));
      return row;
    });
    const own = rowOf(decision, chosen.name);
    own.className = "s-BASELINE";
    put(own, "verdict", "Compared with");
    for (const name of ["delta", "span", "worst", "ratio"]) put(own, name);
    decision.append(...rows, own);
    if (ticks) {
      ticks.replaceChildren(...(chosen.scale ? chosen.scale.ticks : []).map(([at, label]) =>
        draw("text", { x: at + "%", y: 12, "text-anchor": at < 4 ? "start" : at > 96 ? "end" : "middle" }, minus(label))));
    }
  }

  function reason(chosen) {
    reasons.replaceChildren(...chosen.entries.map(([place, status, mark, word, sentence]) => {
      const sign = element("span", "", mark);
      sign.setAttribute("aria-hidden", "true");
      return element("li", "verdict s-" + status,
        element("span", "status", sign, " " + minus(word)), element("span", "who", data.variants[place]), element("p", "why", minus(sentence)));
    }));
  }

  function fill(cell, figure) {
    const score = cell.querySelector(".score");
    if (!score) return;
    const size = [...cell.querySelectorAll("small")].filter((node) => node.textContent.startsWith("n = "));
    const pair = element("div", "pair", score);
    cell.replaceChildren(pair);
    if (figure) {
      const [delta, interval, word, flips, losses, gains, share, drawn] = figure;
      pair.append(" ", element("span", "delta w-" + word, minus(delta)));
      if (drawn) cell.append(bar(drawn));
      cell.append(element("small", "", minus(interval)));
      if (flips) cell.append(element("small", "", `${flips} flips: −${losses} +${gains}`));
      if (share) cell.append(element("small", "", share + " kept"));
    }
    cell.append(...size);
  }

  function score(chosen) {
    const verdicts = new Map(chosen.entries.map((entry) => [entry[0], entry]));
    data.variants.forEach((name, place) => {
      const row = rowOf(summary, name);
      const entry = verdicts.get(place);
      row.cells[0].querySelector("small").textContent = entry ? minus(`${entry[2]} ${entry[3]}`) : "compared with";
      [...row.cells].slice(1).forEach((cell, column) => fill(cell, (chosen.cells[place] || [])[column]));
    });
  }

  function show() {
    const place = Number(select.value);
    const chosen = data.references[place];
    restore();
    if (place) {
      if (decision) decide(chosen);
      if (reasons) reason(chosen);
      if (summary) score(chosen);
    }
    for (const node of document.querySelectorAll("[data-reference]")) node.textContent = chosen.name;
    const first = data.references[0].name;
    document.getElementById("versus-note").textContent = place
      ? `The title, the charts and all below the table of scores compare with ${first}; no gate judges against ${chosen.name}.` : "";
  }

  document.getElementById("versus").hidden = false;
  select.value = "0";
  select.addEventListener("change", show);
})();

"use strict";
// Tables that filter and leave as CSV; numbers that copy as ASCII; code with a button that copies it.
(function ({ $, make, dressed }) {
  // What the page shows as signs, as a program reads it; a dash that stands alone is none of a sentence.
  const ascii = (text) => text
    .replaceAll("\u2212", "-")
    .replaceAll("\u202f", "")
    .replaceAll("\u00d7", "x")
    .replaceAll("\u221e", "inf")
    .replace(/^\u2013$/, "-");
  const VERBATIM = "pre, code, .verbatim, textarea, input";

  // --- copy ---------------------------------------------------------------------------------------
  document.addEventListener("copy", (event) => {
    const chosen = getSelection();
    if (!chosen || chosen.isCollapsed || !event.clipboardData) return;
    const around = chosen.getRangeAt(0).commonAncestorContainer;
    const element = around.nodeType === Node.ELEMENT_NODE ? around : around.parentElement;
    if (element.closest(VERBATIM)) return;
    const holder = document.createElement("div");
    for (let at = 0; at < chosen.rangeCount; at += 1) holder.append(chosen.getRangeAt(at).cloneContents());
    for (const node of holder.querySelectorAll("svg, .csv, .copy, .table-filter")) node.remove();
    const walker = document.createTreeWalker(holder, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (!node.parentElement.closest(VERBATIM)) node.data = ascii(node.data);
    }
    const rows = chosen.toString().split("\n").map((line) => line.split("\t").map(ascii).join("\t"));
    event.clipboardData.setData("text/plain", rows.join("\n"));
    event.clipboardData.setData("text/html", holder.innerHTML);
    event.preventDefault();
  });

  async function toClipboard(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = make("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  for (const code of document.querySelectorAll("#reproduce pre")) {
    const button = make("button", { type: "button", class: "button copy" }, "Copy");
    let back = 0;
    button.addEventListener("click", async () => {
      button.textContent = (await toClipboard(code.textContent)) ? "Copied" : "Select and copy it by hand";
      clearTimeout(back);
      back = setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    code.before(button);
  }

  // --- CSV ----------------------------------------------------------------------------------------
  // A cell's texts, apart where they stand apart on the page; a text that a spreadsheet would run is quoted.
  const MEASURED = /^(?:[+-]?(?:\d+\.?\d*|\.\d+|inf)(?:e[+-]?\d+)?%?(?: to |; |$))+$/;
  function words(cell) {
    if (!cell) return "";
    const parts = [];
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    let above = null;
    while (walker.nextNode()) {
      const node = walker.currentNode, block = node.parentElement.closest("small, .pair, .gate, .score, .delta, p, li, th, td");
      if (node.parentElement.closest("svg, .swatch, .csv, .decision .proved")) continue;
      if (!cell.matches(".range") && node.parentElement.closest(".range")) continue;
      const text = ascii(node.data.replace(/[^\S\u202f]+/g, " ").trim());
      if (!text) continue;
      if (parts.length && block === above) parts[parts.length - 1] += /\s$|^\s/.test(node.data) || /^\s/.test(node.data) ? " " + text : text;
      else parts.push(text);
      above = block;
    }
    const joined = parts.map(ascii).join("; ");
    return /^[=@\t\r＝＋－＠]|^[+-]./.test(joined) && !MEASURED.test(joined) ? "'" + joined : joined;
  }
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  // Columns whose cells hold a number and its interval become two.
  function csv(table) {
    const rows = [...table.rows].map((row) => [...row.cells]);
    const twofold = rows[0].map((_, at) => rows.some((row) => row[at]?.querySelector(".range")));
    const parts = (cell, at, head) => {
      const found = [words(cell)];
      if (twofold[at]) found.push(head ? `${found[0]}, interval` : words(cell.querySelector(".range")));
      return found.map(quoted);
    };
    return rows.map((row, place) => row.flatMap((cell, at) => parts(cell, at, place === 0)).join(",")).join("\r\n") + "\r\n";
  }

  function save(name, text) {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" })) });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const titled = (table) => table.closest("[aria-label]")?.getAttribute("aria-label") || document.title;
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "table";

  // --- what stands above a table ------------------------------------------------------------------
  function filtered(table) {
    const input = make("input", { type: "search", "aria-label": `Filter: ${titled(table)}`, placeholder: "Filter rows", autocomplete: "off" });
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]).map((row) => [row, row.textContent.toLowerCase()]);
    const told = make("span", { class: "note", role: "status" });
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of rows) {
        row.hidden = !wanted.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      told.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
    });
    return [input, told];
  }

  dressed((root) => root.querySelectorAll(".scroll > table").forEach((table) => {
    const button = make("button", { type: "button", class: "csv", "aria-label": `CSV: ${titled(table)}` });
    button.addEventListener("click", () => save(`${slug(titled(table))}.csv`, csv(table)));
    const parts = table.hasAttribute("data-filter") ? filtered(table) : [];
    if (parts.length) table.parentElement.before(make("div", { class: "table-filter" }, ...parts));
    const caption = table.caption?.querySelector("span") || table.caption;
    if (caption) caption.append(" ", button);
    else table.parentElement.before(button);
  }));

  Object.assign(page, { ascii, csv });
})(page);

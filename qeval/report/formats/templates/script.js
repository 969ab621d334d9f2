"use strict";
// The page works without its scripts, but for the flips explorer, sorting and the choice of an axis.
// What the other scripts need stands in `page`.
const page = (function () {
  const $ = (id) => document.getElementById(id);

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  }

  const minus = (text) => text.replace("-", "\u2212");
  // No zero has a sign.
  const fixed = (value, digits) => (value == null ? "–" : minus(value.toFixed(digits).replace(/^-(?=[0.]*$)/, "")));

  // --- what scripts add to the page, and to parts that are put into it later ------------------------
  const dressing = [];
  function dressed(dress) {
    dressing.push(dress);
    dress(document);
  }
  const dress = (root) => dressing.forEach((one) => one(root));

  // --- one chart of several -----------------------------------------------------------------------
  dressed((root) => root.querySelectorAll("select[data-switch]").forEach((select) => {
    const show = () => {
      for (const option of select.options) $(option.value).hidden = option.value !== select.value;
    };
    select.closest("[hidden]").hidden = false;
    select.addEventListener("change", show);
    show();
  }));

  // --- tables that sort ---------------------------------------------------------------------------
  function sortTable(table, place, header) {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const isNumber = header.classList.contains("number");
    const key = (row) => {
      const text = row.cells[place].textContent.trim();
      if (!isNumber) return text.toLowerCase();
      const number = parseFloat(text.replace(/[\s×]/g, "").replace("\u2212", "-"));
      return Number.isNaN(number) ? -Infinity : number;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * (up ? 1 : -1));
    table.tBodies[0].append(...rows.map((pair) => pair[1]));
  }

  dressed((root) => root.querySelectorAll("table[data-sortable]").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((header, place) => {
      const button = make("button", { type: "button", class: "sort" }, ...header.childNodes);
      button.addEventListener("click", () => sortTable(table, place, header));
      header.append(button);
    });
  }));

  // --- tables wider than their place ----------------------------------------------------------------
  // A shadow at the right edge for as long as there is more.
  function edges() {
    const open = [...document.querySelectorAll(".scroll")].filter((node) => !node.closest("details:not([open])"));
    const more = open.map((node) => node.scrollWidth - node.clientWidth - node.scrollLeft > 2);
    open.forEach((node, place) => node.classList.toggle("on", more[place]));
  }
  document.addEventListener("scroll", (event) => {
    if (event.target.classList?.contains("scroll")) edges();
  }, { capture: true, passive: true });
  if (typeof ResizeObserver !== "undefined") new ResizeObserver(edges).observe(document.querySelector("main"));

  // --- what is compared with ------------------------------------------------------------------------
  // `name` as long as it is not the run's own baseline; `heard` are called when it changes, `placed` when the
  // page's parts have followed.
  const reference = { name: "", heard: [], placed: [] };

  // --- the address: #anchor?name=value&... ---------------------------------------------------------
  const address = {
    of: (anchor, values) => {
      const named = Object.entries({ ...values, with: reference.name }).filter(([, value]) => value);
      const asked = new URLSearchParams(named).toString();
      return `#${anchor}${asked ? "?" + asked.replaceAll("+", "%20") : ""}`;
    },
    // The anchor, what is asked of it, and what is to be compared with.
    parts: () => {
      const [anchor, asked] = location.hash.slice(1).split("?");
      const { with: wanted = "", ...values } = Object.fromEntries(new URLSearchParams(asked || ""));
      return { anchor, values, wanted, bare: asked === undefined };
    },
    // What is asked of the part of the page that is called so; null where the address names another.
    read: (anchor) => {
      const parts = address.parts();
      return parts.anchor === anchor ? parts.values : null;
    },
    write: (anchor, values) => history.replaceState(null, "", address.of(anchor, values)),
  };
  // A link to where the address already points still leads there.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (link && link.getAttribute("href") === location.hash) window.dispatchEvent(new Event("hashchange"));
  });

  const swatch = (variant) => make("span", { class: `swatch v${variant % 12}`, "aria-hidden": "true" });

  return { $, make, minus, fixed, address, swatch, reference, dressed, dress };
})();

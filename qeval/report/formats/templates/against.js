"use strict";
// "Compare with": every part of the page that depends on what is compared with, in place of the page's own, which come
// back when its baseline is chosen. The parts were rendered with the page; this unpacks them. The choice stands in the
// address as `with`.
(function ({ $, make, address, reference, dress }) {
  const select = $("reference");
  if (!select) return;
  const names = [...select.options].map((option) => option.textContent);
  const plain = document.querySelectorAll("template.aside");
  const note = $("versus-note");
  $("versus").hidden = false;
  select.value = "0";
  if (!plain.length && typeof DecompressionStream === "undefined") {
    select.disabled = true;
    note.textContent = "This browser is too old to unpack the other comparisons; those below are still valid.";
    return;
  }
  const packed = plain.length ? [] : JSON.parse($("asides").textContent);
  const partsOf = (root) => new Map([...root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
  const own = partsOf(document);
  const title = document.title;
  const judged = "judged" in select.dataset ? ` Pass and fail are against ${names[0]} alone.` : "";
  let current = 0, turns = 0;

  async function unpacked(place) {
    if (plain.length) return plain[place - 1].content.cloneNode(true);
    const bytes = Uint8Array.from(atob(packed[place - 1]), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const holder = make("template");
    holder.innerHTML = await new Response(stream).text();
    return holder.content;
  }

  // What has changed, what has not, and why a verdict may seem to contradict another: a line each.
  function told(name) {
    const line = (head, text) => make("span", {}, make("b", {}, head), ` ${text}`);
    return [
      line(`Compared with ${name}:`, `all numbers on this page but those named here.${judged}`),
      line("Unchanged:", `the notes on top, fidelity and the noise floor (both against ${names[0]}), costs, earlier runs, and the commands below, which need --baseline and this name.`),
      line("Verdicts:", "seen from its other side, a pair may have another one, as each side is corrected for its own comparisons."),
    ];
  }

  // A drawing that no reference changes stands in the page's own part and is shown in the other one too.
  function keep(part, from) {
    for (const holder of part.querySelectorAll("[data-keep]")) {
      const drawn = from.querySelector(`#${CSS.escape(holder.dataset.keep)}`);
      if (drawn) holder.replaceWith(drawn.cloneNode(true));
    }
  }

  function put(parts, place) {
    for (const [name, node] of partsOf(document)) {
      const part = parts.get(name);
      if (!part || part === node) continue;
      if (place) keep(part, own.get(name));
      node.replaceWith(part);
      if (place) dress(part);
    }
    document.title = place ? parts.get("masthead").dataset.title : title;
    for (const node of document.querySelectorAll("[data-stays]")) node.hidden = !place;
    note.replaceChildren(...(place ? told(names[place]) : []));
    for (const placed of reference.placed) placed();
  }

  async function choose(place) {
    const turn = (turns += 1);
    current = place;
    select.value = String(place);
    reference.name = place ? names[place] : "";
    for (const hear of reference.heard) hear();
    const parts = place ? partsOf(await unpacked(place)) : own;
    if (turn === turns) put(parts, place);
    return turn === turns;
  }

  select.addEventListener("change", () => {
    const { anchor, values } = address.parts();
    reference.name = Number(select.value) ? names[Number(select.value)] : "";
    address.write(anchor || "results", values);
    choose(Number(select.value));
  });

  // A bare anchor, as of the list of sections, keeps what is compared with; every other address names it.
  async function follow() {
    const { anchor, wanted, bare } = address.parts();
    const place = Math.max(0, names.indexOf(wanted));
    if (bare && anchor && current) address.write(anchor, {});
    else if (place !== current) {
      if (!(await choose(place))) return;
      if (anchor === "flips") window.dispatchEvent(new Event("hashchange"));
      else if (anchor && anchor !== "results") $(anchor)?.scrollIntoView();
    } else if (!bare && anchor !== "flips") $(anchor)?.scrollIntoView();
    if (!current) note.textContent = wanted && !names.includes(wanted) ? `Nothing in this page is compared with ${wanted}.` : "";
  }
  window.addEventListener("hashchange", follow);
  follow();
})(page);

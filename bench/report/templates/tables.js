"use strict";
// Tables: sorting by the heads, filters, pages of 200 rows. The page is whole without it.
const SLICE = 200;
const FACETS = ["family", "sampler", "steps", "likelihood", "kind", "density", "verdict", "metric"];
const value = (cell) => {
  const raw = cell ? cell.dataset.sort : undefined;
  if (raw === undefined || raw === "") return null;
  return Number.isNaN(Number(raw)) ? raw : Number(raw);
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const plain = (text) => text.toLowerCase().split(/\s+/).filter(Boolean).join(" ");
const plural = (count) => `${count} row${count === 1 ? "" : "s"}`;

function sort(view, index) {
  const head = view.table.tHead.rows[0].cells[index];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of view.table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  for (const item of view.items) item.key = value(item.row.cells[index]);
  view.items.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    return (down ? -1 : 1) * compare(a.key, b.key) || a.place - b.place;
  });
  view.body.append(...view.items.map((item) => item.row)); // floor and ceiling stay at their ends
  view.sorted = `, sorted by ${head.querySelector("button").textContent}, ${down ? "descending" : "ascending"}`;
  view.page = 0;
  show(view);
}

function show(view) {
  const wanted = plain(view.text);
  const asked = wanted || Object.values(view.chosen).some(Boolean); // who looks for something looks among all draws
  const held = view.items.filter(({ row, text }) =>
    (view.all || asked || !row.classList.contains("more")) &&
    text.includes(wanted) &&
    Object.entries(view.chosen).every(([name, chosen]) => !chosen || row.dataset[name] === chosen));
  const pages = Math.max(1, Math.ceil(held.length / SLICE));
  view.page = Math.min(view.page, pages - 1);
  const seen = new Set(held.slice(view.page * SLICE, (view.page + 1) * SLICE));
  for (const item of view.items) item.row.hidden = !seen.has(item);
  const part = held.length === view.items.length ? plural(held.length) : `${held.length} of ${plural(view.items.length)}`;
  const page = pages > 1 ? `, page ${view.page + 1} of ${pages}` : "";
  view.status.textContent = part + page + view.sorted;
  if (view.pager) {
    view.pager.hidden = pages === 1;
    view.back.disabled = view.page === 0;
    view.next.disabled = view.page === pages - 1;
  }
}

function controls(view) {
  const box = make("div", { className: "controls" });
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `Filter ${view.table.dataset.title}`);
  const changed = (change) => (event) => { change(event.target); view.page = 0; show(view); };
  if (view.items.length > 5) {
    const find = make("input", { type: "search" });
    find.addEventListener("input", changed((field) => { view.text = field.value; }));
    box.append(make("label", {}, "find ", find));
  }
  for (const name of FACETS) {
    const found = [...new Set(view.items.map(({ row }) => row.dataset[name]).filter(Boolean))];
    if (found.length < 2) continue;
    if (name === "steps") found.sort((a, b) => a - b);
    const select = make("select", {}, make("option", { value: "" }, "all"), ...found.map((v) => make("option", {}, v)));
    select.addEventListener("change", changed((field) => { view.chosen[name] = field.value; }));
    box.append(make("label", {}, `${name} `, select));
  }
  if (view.items.length > SLICE) {
    view.back = make("button", { type: "button" }, "previous");
    view.next = make("button", { type: "button" }, "next");
    view.back.addEventListener("click", () => { view.page -= 1; show(view); });
    view.next.addEventListener("click", () => { view.page += 1; show(view); });
    view.pager = make("span", { className: "pager" }, view.back, view.next);
    box.append(view.pager);
  }
  return box;
}

function enhance(table) {
  const body = table.querySelector("tbody.body");
  if (!body) return;
  const items = Array.from(body.rows, (row, place) => ({ row, place, text: plain(row.textContent) }));
  const status = make("p", { className: "status" });
  const view = { table, body, items, status, text: "", chosen: {}, all: true, page: 0, sorted: "" };
  const box = controls(view);
  const toggle = document.querySelector(`input[data-table="${table.id}"]`);
  if (toggle) {
    view.all = toggle.checked = false;
    toggle.parentElement.hidden = false;
    toggle.addEventListener("change", () => { view.all = toggle.checked; view.page = 0; show(view); });
    box.append(toggle.parentElement);
  }
  if (!box.children.length) status.classList.add("quiet");
  table.closest(".scroll").before(box, status);
  Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
    const text = head.querySelector(".head");
    const button = make("button", { type: "button" }, ...text.childNodes);
    text.replaceWith(button);
    button.addEventListener("click", () => sort(view, index));
  });
  show(view);
  if (!box.children.length) status.textContent = "";
  status.setAttribute("role", "status"); // from now on changes are read aloud, politely
}

for (const table of document.querySelectorAll("table[id]")) enhance(table);

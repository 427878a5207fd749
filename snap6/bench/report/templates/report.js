"use strict";
// Sorting by the column heads and the switch for all draws. The page is whole without it.
const value = (cell) => {
  const raw = cell ? cell.dataset.sort : undefined;
  if (raw === undefined || raw === "") return null;
  return Number.isNaN(Number(raw)) ? raw : Number(raw);
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));

function sort(table, index, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.querySelector("tbody.body");  // floor and ceiling stay at their ends
  if (!body) return;
  const rows = Array.from(body.rows, (row, place) => ({ row, place, key: value(row.cells[index]) }));
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    return (down ? -1 : 1) * compare(a.key, b.key) || a.place - b.place;
  });
  body.append(...rows.map((item) => item.row));
}

for (const table of document.querySelectorAll("table")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
    const text = head.querySelector(".head");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...text.childNodes);
    text.replaceWith(button);
    button.addEventListener("click", () => sort(table, index, head));
  });
}
for (const box of document.querySelectorAll("input[data-table]")) {
  const table = document.getElementById(box.dataset.table);
  const apply = () => table.classList.toggle("few", !box.checked);
  box.checked = false;
  box.parentElement.hidden = false;
  box.addEventListener("change", apply);
  apply();
}

// Pictures that enlarge, marks that tell their numbers, blocks that open when a link leads to them.
// Marks tell by pointer, by keyboard and by a first tap; a second tap or Enter leads to the model. Listeners are the
// document's, so that the marks of an enlarged picture tell as well.
const tip = make("div", { className: "tip", hidden: true });
tip.setAttribute("role", "tooltip");
tip.id = "tip";
const home = document.querySelector("main");
home.append(tip);
let told = null;
let pointer = "";

function tell(mark) {
  const [first, ...rest] = mark.dataset.tip.split("\n");
  tip.replaceChildren(make("b", {}, first), ...rest.map((line) => make("div", {}, line)));
  (mark.closest("dialog") || home).append(tip); // what is outside of an open dialog is not seen
  tip.hidden = false;
  told = mark;
  const spot = mark.getBoundingClientRect();
  const left = Math.min(Math.max(8, spot.left + spot.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const below = spot.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? spot.bottom + 8 : Math.max(4, spot.top - tip.offsetHeight - 8)}px`;
}
function hush() { tip.hidden = true; told = null; }
const markOf = (target) => (target instanceof Element ? target.closest("[data-tip]") : null);
function nearest(event) { // of marks that lie over each other the one whose middle is nearest to the pointer
  const mark = markOf(event.target);
  const group = mark ? mark.closest(".spots") : null;
  if (!group) return mark;
  const far = (one) => {
    const box = one.getBoundingClientRect();
    return Math.hypot(box.left + box.width / 2 - event.clientX, box.top + box.height / 2 - event.clientY);
  };
  return Array.from(group.querySelectorAll("a")).reduce((best, one) => (far(one) < far(best) ? one : best), mark);
}
for (const title of document.querySelectorAll("[data-tip] title")) title.remove(); // else there are two tips
document.addEventListener("pointerdown", (event) => { pointer = event.pointerType; }, true);
for (const kind of ["pointerover", "pointermove"]) {
  document.addEventListener(kind, (event) => {
    if (event.pointerType === "touch" || !markOf(event.target)) return;
    const mark = nearest(event);
    if (mark !== told) tell(mark);
  });
}
document.addEventListener("pointerout", (event) => {
  if (event.pointerType !== "touch" && markOf(event.target) && markOf(event.target) !== markOf(event.relatedTarget)) hush();
});
document.addEventListener("focusin", (event) => {
  if (event.target.matches("[data-tip]") && event.target.matches(":focus-visible")) tell(event.target);
});
document.addEventListener("focusout", (event) => { if (markOf(event.target)) hush(); });
document.addEventListener("click", (event) => {
  const pointed = event.detail > 0; // Enter is a click without detail
  const mark = pointed ? nearest(event) : markOf(event.target);
  const first = pointed && pointer === "touch" && mark !== told;
  if (mark && (first || mark !== markOf(event.target))) event.preventDefault();
  if (mark && first) {
    tell(mark);
    return;
  }
  if (mark && mark !== markOf(event.target) && mark.hasAttribute("href")) location.hash = mark.getAttribute("href");
  if (pointed && pointer === "touch") hush();
  if (mark && mark.closest("dialog")) dialog.close();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
document.addEventListener("scroll", () => { // to a mark that has the focus the page may have scrolled by itself
  if (told && told === document.activeElement) tell(told); else hush();
}, { passive: true, capture: true });

// Of a figure's marks one is reached by Tab, the others from there by the arrow keys.
for (const group of document.querySelectorAll(".spots")) {
  group.setAttribute("aria-label", `${group.getAttribute("aria-label")}: arrow keys go from one to the next`);
  Array.from(group.querySelectorAll("a"), (mark, i) => mark.setAttribute("tabindex", i ? "-1" : "0"));
}
document.addEventListener("keydown", (event) => {
  const group = event.target instanceof Element ? event.target.closest(".spots") : null;
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (!group || !(event.key in steps || event.key === "Home" || event.key === "End")) return;
  const marks = Array.from(group.querySelectorAll("a"));
  const at = marks.indexOf(event.target) + (steps[event.key] || 0);
  const next = event.key === "Home" ? 0 : event.key === "End" ? marks.length - 1 : Math.min(Math.max(at, 0), marks.length - 1);
  event.preventDefault();
  for (const mark of marks) mark.setAttribute("tabindex", mark === marks[next] ? "0" : "-1");
  marks[next].focus();
});

const dialog = make("dialog", { className: "large" });
dialog.setAttribute("aria-label", "Enlarged picture");
const shut = make("button", { type: "button", className: "shut" }, "Close");
const stage = make("div", { className: "stage", tabIndex: 0 });
stage.setAttribute("role", "group");
stage.setAttribute("aria-label", "Picture");
const words = make("p");
dialog.append(shut, stage, words);
document.body.append(dialog);
shut.addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => { stage.replaceChildren(); hush(); });

function enlarge(picture) {
  const marks = picture.parentElement.parentElement.querySelector(":scope > .spots");
  const copy = picture.cloneNode(true);
  for (const part of copy.querySelectorAll("[id]")) part.removeAttribute("id");
  copy.classList.remove("zoom");
  const width = Number(picture.getAttribute("width"));
  const height = Number(picture.getAttribute("height"));
  const room = Math.min((0.94 * innerWidth - 40) / width, (0.9 * innerHeight - 130) / height);
  const exact = picture.classList.contains("pixels") || picture.querySelector(".exact");
  const scale = exact ? Math.max(1, Math.floor(room * 2) / 2) : Math.max(1, room);
  copy.setAttribute("width", Math.round(width * scale));
  copy.setAttribute("height", Math.round(height * scale));
  stage.replaceChildren(marks ? make("div", { className: "plot" }, copy, marks.cloneNode(true)) : copy);
  const caption = picture.closest("figure").querySelector("figcaption");
  words.textContent = caption ? caption.textContent : "";
  hush();
  dialog.showModal();
}

for (const picture of document.querySelectorAll(".zoom")) {
  const button = make("button", { type: "button", className: "enlarge" });
  const name = picture.getAttribute("alt") || picture.getAttribute("aria-label");
  button.setAttribute("aria-label", `Enlarge: ${name}`);
  picture.replaceWith(button);
  button.append(picture);
  button.addEventListener("click", () => enlarge(picture));
}

function open() {
  const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
  const folded = target ? target.closest("details") : null;
  if (folded && !folded.open) { folded.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", open);
open();
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details.model, details.strips")) part.open = true; });

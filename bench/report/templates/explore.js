// Pictures that enlarge, marks that tell their numbers, blocks that open when a link leads to them.
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
dialog.addEventListener("close", () => stage.replaceChildren());

function enlarge(picture) {
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
  stage.replaceChildren(copy);
  const caption = picture.closest("figure").querySelector("figcaption");
  words.textContent = caption ? caption.textContent : "";
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

const tip = make("div", { className: "tip", hidden: true });
tip.setAttribute("role", "tooltip");
tip.id = "tip";
document.querySelector("main").append(tip);

function tell(mark) {
  const [first, ...rest] = mark.dataset.tip.split("\n");
  tip.replaceChildren(make("b", {}, first), ...rest.map((line) => make("div", {}, line)));
  tip.hidden = false;
  const spot = mark.getBoundingClientRect();
  const left = Math.min(Math.max(8, spot.left + spot.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const below = spot.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? spot.bottom + 8 : Math.max(4, spot.top - tip.offsetHeight - 8)}px`;
}
const hush = () => { tip.hidden = true; };
for (const mark of document.querySelectorAll("[data-tip]")) {
  for (const title of mark.querySelectorAll("title")) title.remove(); // else there are two tips
  mark.addEventListener("pointerenter", () => tell(mark));
  mark.addEventListener("focus", () => tell(mark));
  mark.addEventListener("pointerleave", hush);
  mark.addEventListener("blur", hush);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
document.addEventListener("scroll", hush, { passive: true });

function open() {
  const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
  const folded = target ? target.closest("details") : null;
  if (folded && !folded.open) { folded.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", open);
open();
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details.model, details.strips")) part.open = true; });

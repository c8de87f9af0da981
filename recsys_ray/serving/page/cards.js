// Items as posters, stars, and shelves of them.
import { address, attempt, element, state } from "./api.js";

export const name = (item) => item.title || String(item.item_id);

export function year(item) {
  return item.year && !(item.title || "").includes(String(item.year)) ? String(item.year) : "";
}

// The picture of an item, or its first letter on the colour of its first genre.
export function poster(item, badge = "") {
  const initial = element("span", { className: "initial", textContent: name(item).slice(0, 1).toUpperCase() });
  initial.setAttribute("aria-hidden", "true");
  const node = element("div", { className: "poster" }, initial);
  const letters = [...(item.genres[0] || name(item))];
  node.style.setProperty("--hue", letters.reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7));
  if (item.poster) {
    const image = element("img", { alt: "", loading: "lazy", width: 150, height: 225 });
    image.addEventListener("error", () => image.remove());
    image.src = item.poster;
    node.append(image);
  }
  if (badge) node.append(element("span", { className: "badge", textContent: badge }));
  return node;
}

export function card(item, { reason = "", shared = "", badge = "", facts = null, actions = [] } = {}) {
  const { user } = state();
  const words = facts === null ? [year(item), item.genres.join(", ")].filter(Boolean).join(" · ") : facts;
  const link = element("a", { href: address({ item: item.item_id, user }) }, poster(item, badge), element("h3", { textContent: name(item) }));
  return element("li", { className: "card" }, link,
    words ? element("p", { className: "facts quiet", textContent: words }) : null,
    reason ? element("p", { className: "reason", textContent: reason }) : null,
    shared ? element("p", { className: "shared", textContent: shared }) : null,
    actions.length ? element("div", { className: "actions" }, ...actions) : null);
}

export function button(text, item, work) {
  const node = element("button", { type: "button", textContent: text });
  node.setAttribute("aria-label", `${text}: ${name(item)}`);
  node.addEventListener("click", () => attempt(work));
  return node;
}

// Half stars: a slider from 0 (not rated) to 5 that looks like stars.
export function stars(item, given, changed) {
  const line = (className) => {
    const node = element("span", { className }, ...Array.from({ length: 5 }, () => element("i", { textContent: "★" })));
    node.setAttribute("aria-hidden", "true");
    return node;
  };
  const full = line("full");
  const input = element("input", { type: "range", min: 0, max: 5, step: 0.5, value: given });
  input.setAttribute("aria-label", `Your stars for ${name(item)}`);
  const show = () => {
    full.style.width = `${1.5 * input.value}rem`;
    input.setAttribute("aria-valuetext", Number(input.value) ? `${input.value} of 5 stars` : "not rated");
  };
  input.addEventListener("input", show);
  input.addEventListener("change", () => attempt(() => changed(Number(input.value))));
  show();
  return element("div", { className: "stars" }, line("empty"), full, input);
}

// Stars on the scale of the data: five are its highest rating, none of them lies below its lowest.
export function rating(count, { lowest, highest }) {
  return Math.max(lowest, (highest * count) / 5);
}

export function shelf(title, note, cards, { id = "", grid = false } = {}) {
  const list = element("ol", { className: grid ? "grid" : "shelf", id }, ...cards);
  if (!grid) list.tabIndex = 0;
  const heading = element("h2", { textContent: title, tabIndex: -1 });
  list.setAttribute("aria-label", title);
  return element("section", {}, heading, note ? element("p", { className: "quiet", textContent: note }) : null, list);
}

export function reasonOf(item) {
  if (item.reason) return item.reason.text;
  return item.source === "model" ? "" : "Popular with others";
}

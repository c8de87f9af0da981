// One item: what it is, what is like it and why, and why a user would get it.
import { $, address, call, element, path, ROWS, showOrigin, state } from "./api.js";
import { card, name, poster, shelf, year } from "./cards.js";

function likeness(item, like) {
  const shared = item.genres.filter((genre) => like.genres.includes(genre));
  const decade = item.year && like.year && Math.abs(item.year - like.year) <= 5 ? "of the same years" : "";
  const parts = [shared.length ? `also ${shared.join(", ")}` : "", decade].filter(Boolean);
  return `${parts.join(", ") || "liked by the same people"} · likeness ${like.score.toFixed(2)}`;
}

// The reason this one item would stand in the list of the user, whether it does or not.
async function why(user, item) {
  const body = { user_id: user, allow: [item], n: 1, explain: true, exclude_seen: false };
  const answer = await call("/v1/recommendations", body);
  const found = answer.items[0];
  if (!found?.reason || found.source !== "model") return element("p", { textContent: `The model has no reason to recommend it to user ${user}.` });
  const causes = found.reason.because_of.map((cause) => element("li", {
    textContent: `${cause.title || cause.item_id}: rated ${cause.rating}, ${Math.round(100 * cause.share)} % of what speaks for it`,
  }));
  return element("div", {}, element("p", { className: "reason", textContent: found.reason.text }), element("ul", {}, ...causes));
}

export async function showItem() {
  const { item: id, user } = state();
  const [found, similar] = await Promise.all([
    call(`/v1/items/${path(id)}`), call(`/v1/items/${path(id)}/similar?n=${ROWS}`)]);
  const item = found.items[0];
  showOrigin(similar);
  const words = [
    element("h2", { textContent: name(item), tabIndex: -1 }),
    element("p", { className: "quiet", textContent: [year(item), `${item.interactions.toLocaleString("en")} interactions`].filter(Boolean).join(" · ") }),
    element("ul", { className: "chips" }, ...item.genres.map((genre) => element("li", { textContent: genre }))),
  ];
  if (item.text) words.push(element("p", { textContent: item.text }));
  if (user) {
    words.push(element("h3", { textContent: `Why user ${user} would get it` }), await why(user, item.item_id));
    words.push(element("p", {}, element("a", { href: address({ view: "people", user }), textContent: `Back to the list of user ${user}` })));
  }
  const likes = similar.items.map((like) => card(like, { reason: likeness(item, like) }));
  $("item").replaceChildren(
    element("div", { className: "item" }, poster(item), element("div", {}, ...words)),
    shelf(`Similar to ${name(item)}`, likes.length ? "" : "The model finds nothing like it.", likes, { id: "similar" }));
  document.title = `${name(item)} · Recommendations`;
}

// One user: what they had, beside it their list, or two lists side by side, and rows on what they liked and what is new.
import { $, address, attempt, call, element, path, ROWS, showOrigin, state } from "./api.js";
import { button, card, name, reasonOf, shelf } from "./cards.js";

const WHO = {
  known: "as the model saw this user",
  updated: "with what this user did since the model was trained",
  new: "from what this user sent alone",
  unknown: "nothing is known of this user",
};
const SOURCES = { "fallback:popularity": "the most popular items", none: "nothing is left to recommend", mixed: "filled up with popular items" };
const LIKED_ROWS = 2;
const MOST = 12;
let turn = 0;
let newest = null;

function question(asked) {
  const context = {};
  if (asked.diversity) context.diversity = Number(asked.diversity);
  if (asked.most) context.max_per_genre = Number(asked.most);
  return {
    user_id: asked.user, n: ROWS, explain: true,
    ...(asked.genre ? { genre: asked.genre } : {}), ...(Object.keys(context).length ? { context } : {}),
  };
}

function note(answer) {
  const parts = [`${answer.history} ${answer.history === 1 ? "interaction" : "interactions"}`, WHO[answer.user], SOURCES[answer.source], answer.message];
  return parts.filter(Boolean).join(" · ");
}

// What the user says of an item: that it was seen, which only filters it, or that it should never come again.
function actions(user, item) {
  const tell = (kind) => async () => {
    await call("/v1/feedback", { events: [{ user_id: user, item_id: item.item_id, kind }] });
    await showUser();
  };
  return [button("Seen it", item, tell("seen")), button("Not for me", item, tell("hidden"))];
}

function cardsOf(user, items, others) {
  const places = new Map((others || []).map((item, place) => [item.item_id, place + 1]));
  return items.map((item, place) => card(item, {
    reason: reasonOf(item), badge: String(place + 1), actions: actions(user, item),
    shared: places.has(item.item_id) ? `number ${places.get(item.item_id)} beside` : "",
  }));
}

async function showHistory(user) {
  const had = await call(`/v1/users/${path(user)}/history?n=24`);
  const rated = new Set(had.items.map((item) => item.rating)).size > 1;
  $("had-note").textContent = had.history ? `${had.history} in all, the newest first` : "Nothing yet.";
  $("had").tabIndex = 0;
  $("had").setAttribute("aria-label", "What they had");
  $("had").replaceChildren(...had.items.map((item) => card(item, { facts: rated ? `★ ${item.rating}` : "" })));
  return had;
}

// What speaks for most of the list, and else what the user rated highest last.
function liked(answer, had) {
  const counts = new Map();
  for (const item of answer.items) {
    for (const cause of item.reason?.because_of || []) {
      const found = counts.get(cause.item_id) || { ...cause, share: 0 };
      found.share += cause.share;
      counts.set(cause.item_id, found);
    }
  }
  const causes = [...counts.values()].sort((one, other) => other.share - one.share);
  const best = [...had.items].sort((one, other) => other.rating - one.rating);
  return (causes.length ? causes : best).slice(0, LIKED_ROWS);
}

async function likedShelf(item, shown) {
  const answer = await call(`/v1/items/${path(item.item_id)}/similar?n=${2 * ROWS}`);
  const fresh = answer.items.filter((like) => !shown.has(like.item_id)).slice(0, ROWS);
  for (const like of fresh) shown.add(like.item_id);
  return fresh.length ? shelf(`Because you liked ${name(item)}`, "", fresh.map((like) => card(like))) : null;
}

// Items that nobody has yet, where the model can tell who would like them; else those of the last years.
async function newShelf(asked) {
  const ask = { user_id: asked.user, n: ROWS, explain: true };
  const unseen = await call("/v1/recommendations", { ...ask, where: { count: { max: 0 } } }).catch(() => ({ items: [] }));
  let items = unseen.items.filter((item) => item.source === "model");
  let words = "Nobody has these yet.";
  if (!items.length && newest) {
    items = (await call("/v1/recommendations", { ...ask, year_from: newest - 1 })).items;
    words = `From ${newest - 1} on.`;
  }
  return items.length ? shelf("New arrivals", words, items.map((item) => card(item, { reason: reasonOf(item) })), { id: "arrivals" }) : null;
}

async function beside(asked) {
  if (asked.beside === "popular") {
    const answer = await call(`/v1/popular?n=${ROWS}${asked.genre ? `&genre=${path(asked.genre)}` : ""}`);
    return { title: "The most popular", words: "the same for everybody, also what this user has", items: answer.items.map((item) => ({ ...item, source: "model" })) };
  }
  const answer = await call("/v1/recommendations", { ...question(asked), variant: asked.beside });
  return { title: `Variant ${answer.variant}`, words: `model ${answer.model} · ${note(answer)}`, items: answer.items };
}

// A slow answer to an old question never replaces the answer to a newer one.
export async function showUser(newestYear = newest) {
  newest = newestYear;
  const mine = ++turn;
  const asked = state();
  for (const node of $("users").querySelectorAll("button")) {
    node.setAttribute("aria-pressed", String(node.dataset.user === asked.user));
  }
  $("lists").classList.add("busy");
  try {
    const [answer, had, other] = await Promise.all([
      call("/v1/recommendations", question(asked)), showHistory(asked.user), asked.beside ? beside(asked) : null]);
    if (mine !== turn) return;
    showOrigin(answer);
    const title = other && asked.beside !== "popular" ? `For user ${asked.user}: variant ${answer.variant}` : `For user ${asked.user}`;
    const first = shelf(title, note(answer), cardsOf(asked.user, answer.items, other?.items), { id: "list", grid: Boolean(other) });
    const columns = element("div", { className: other ? "columns two" : "columns" }, first);
    if (other) columns.append(shelf(other.title, other.words, cardsOf(asked.user, other.items, answer.items), { id: "other", grid: true }));
    $("lists").replaceChildren(columns);
    $("lists").classList.remove("busy");
    if (other) return;
    const shown = new Set([...answer.items, ...had.items].map((item) => item.item_id));
    for (const item of liked(answer, had)) {
      const row = await likedShelf(item, shown);
      if (mine !== turn) return;
      if (row) $("lists").append(row);
    }
    const arrivals = await newShelf(asked);
    if (mine === turn && arrivals) $("lists").append(arrivals);
  } finally {
    if (mine === turn) $("lists").classList.remove("busy");
  }
}

// The controls say what the address asks for, and an address is made of what they say.
export function showControls(asked) {
  $("genre").value = asked.genre || "";
  $("beside").value = asked.beside || "";
  $("diversity").value = asked.diversity || 0;
  $("most").value = asked.most || MOST;
  $("diversity-value").textContent = asked.diversity || "off";
  $("most-value").textContent = asked.most || "any";
}

export function controlled(go) {
  const read = () => ({
    ...state(), genre: $("genre").value, beside: $("beside").value,
    diversity: Number($("diversity").value) ? $("diversity").value : "",
    most: Number($("most").value) < MOST ? $("most").value : "",
  });
  for (const id of ["genre", "beside", "diversity", "most"]) {
    $(id).addEventListener("change", () => go(address(read())));
    $(id).addEventListener("input", () => showControls(read()));
  }
}

export function choices(users, go) {
  $("users").replaceChildren(...users.map((user) => {
    const choice = element("button", { type: "button", textContent: `${user.label} (${user.user_id})` });
    choice.dataset.user = String(user.user_id);
    choice.addEventListener("click", () => attempt(() => go(address({ ...state(), view: "people", item: "", user: user.user_id }))));
    return element("li", {}, choice);
  }));
}

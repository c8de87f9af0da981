"use strict";
// The page of the service. It only calls the public API of the address it came from.

const $ = (id) => document.getElementById(id);
const STARS = 5;
const ROWS = 12;
const state = { view: "people", user: null, ratings: new Map(), scale: { lowest: 1, highest: 5 }, minimum: 5, asked: 0 };

async function call(path, body) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers["X-API-Key"] = key;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await answer.json();
  if (answer.ok) return found;
  $("key-form").hidden = answer.status !== 401;
  throw new Error(found.error || `The service answered ${answer.status}.`);
}

// Runs one action of the user; what fails is said on the page.
async function attempt(work) {
  $("problem").hidden = true;
  try {
    await work();
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
}

function card(item, { reason = "", actions = [] } = {}) {
  const node = $("card").content.cloneNode(true).firstElementChild;
  const title = item.title || String(item.item_id);
  node.querySelector("h3").textContent = title;
  node.querySelector(".facts").textContent = [titleYear(item), item.genres.join(", ")].filter(Boolean).join(" · ");
  node.querySelector(".initial").textContent = title.slice(0, 1).toUpperCase();
  const image = node.querySelector("img");
  if (item.poster) {
    image.addEventListener("error", () => image.remove());
    image.src = item.poster;
  } else {
    image.remove();
  }
  const words = node.querySelector(".reason");
  if (reason) words.textContent = reason; else words.remove();
  node.querySelector(".actions").append(...actions);
  return node;
}

function titleYear(item) {
  return item.year && !(item.title || "").includes(String(item.year)) ? String(item.year) : "";
}

function button(text, label, work, plain = false) {
  const node = document.createElement("button");
  node.type = "button";
  node.textContent = text;
  if (label !== text) node.setAttribute("aria-label", label);
  if (plain) node.className = "plain";
  node.addEventListener("click", work);
  return node;
}

function stars(item, changed) {
  const group = document.createElement("div");
  group.className = "stars";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", `Your rating of ${item.title || item.item_id}`);
  const show = () => {
    const given = (state.ratings.get(item.item_id) || {}).stars || 0;
    [...group.children].forEach((star, place) => {
      star.classList.toggle("on", place < given);
      star.textContent = place < given ? "★" : "☆";
      star.setAttribute("aria-pressed", String(place + 1 === given));
    });
  };
  for (let count = 1; count <= STARS; count++) {
    group.append(button("☆", `${count} of ${STARS} stars`, () => {
      const same = (state.ratings.get(item.item_id) || {}).stars === count;
      if (same) state.ratings.delete(item.item_id); else state.ratings.set(item.item_id, { stars: count });
      show();
      changed();
    }));
  }
  show();
  return group;
}

// Stars on the scale of the data: one star is its lowest rating, five its highest.
function rating(count) {
  const { lowest, highest } = state.scale;
  return lowest === highest ? highest : lowest + ((highest - lowest) * (count - 1)) / (STARS - 1);
}

function similarButton(item) {
  return button("Similar", `Items similar to ${item.title || item.item_id}`, () => attempt(() => showSimilar(item)), true);
}

function showOrigin(answer) {
  const cached = answer.cached ? ", from the cache" : "";
  $("origin").textContent =
    `model ${answer.model} · variant ${answer.variant} · run ${answer.run_id} · ${answer.took_ms.toFixed(1)} ms${cached}`;
}

function showList(title, note, items, jump) {
  $("list-title").textContent = title;
  $("list-note").textContent = note;
  $("list").replaceChildren(...items);
  if (jump) {
    $("list-title").focus({ preventScroll: true });
    $("list-title").scrollIntoView({ block: "start" });
  }
}

const WHO = {
  known: "as the model saw this user",
  updated: "with what this user did since the model was trained",
  new: "from these ratings alone",
  unknown: "nothing is known of this user",
};
const SOURCES = { "fallback:popularity": "the most popular items", none: "nothing is left to recommend", mixed: "filled up with popular items" };

function reasonOf(item) {
  if (item.reason) return item.reason.text;
  return item.source === "model" ? "" : "Popular with others";
}

function note(answer) {
  const parts = [`${answer.history} ${answer.history === 1 ? "interaction" : "interactions"}`, WHO[answer.user], SOURCES[answer.source]];
  return parts.filter(Boolean).join(" · ");
}

// A slow answer to an old question never replaces the answer to a newer one.
async function recommend(question, title, jump) {
  const turn = ++state.asked;
  const genre = $("genre").value;
  const body = { ...question, n: ROWS, explain: true, ...(genre ? { genre } : {}) };
  $("list").classList.add("busy");
  try {
    const answer = await call("/v1/recommendations", body);
    if (turn !== state.asked) return;
    $("genre-row").hidden = false;
    showOrigin(answer);
    const cards = answer.items.map((item) => card(item, { reason: reasonOf(item), actions: itemActions(item) }));
    showList(title, note(answer), cards, jump);
  } finally {
    $("list").classList.remove("busy");
  }
}

function itemActions(item) {
  const actions = [similarButton(item)];
  if (state.view === "rate") {
    actions.unshift(stars(item, () => attempt(rated)));
  } else if (state.user !== null) {
    actions.unshift(button("Seen it", `Tell that ${item.title || item.item_id} was seen`, () => attempt(async () => {
      const event = { user_id: state.user, item_id: item.item_id, rating: state.scale.highest };
      await call("/v1/feedback", { events: [event] });
      await showUser(state.user, false);
    }), true));
  }
  return actions;
}

async function showUser(user, jump) {
  state.user = user;
  for (const node of $("users").querySelectorAll("button")) {
    node.setAttribute("aria-pressed", String(node.dataset.user === String(user)));
  }
  await recommend({ user_id: user }, `For user ${user}`, jump);
}

async function showSimilar(item) {
  const turn = ++state.asked;
  const answer = await call(`/v1/items/${encodeURIComponent(item.item_id)}/similar?n=${ROWS}`);
  if (turn !== state.asked) return;
  showOrigin(answer);
  $("genre-row").hidden = true;
  const cards = answer.items.map((like) => card(like, { actions: [similarButton(like)] }));
  const empty = answer.items.length ? "" : "The model finds nothing like it.";
  showList(`Similar to ${item.title || item.item_id}`, empty, cards, true);
}

async function rated() {
  const count = state.ratings.size;
  $("meter").value = count;
  $("keep").disabled = count < state.minimum;
  const left = state.minimum - count;
  $("strength").textContent = count === 0
    ? `${state.minimum} ratings are enough to begin with, 10 to 15 are good. The list below changes with each.`
    : `${count} rated. ${left > 0 ? `${left} more to keep your list.` : count < 10 ? "A few more make it better." : "That says a lot about you."}`;
  await recommend({ history: ratings() }, count ? "For you, so far" : "Popular now", false);
}

function ratings() {
  return [...state.ratings].map(([item_id, given]) => ({ item_id, rating: rating(given.stars) }));
}

async function openRating() {
  if (!$("rate-items").children.length) {
    const offered = await call("/v1/onboarding/items");
    state.minimum = offered.minimum;
    state.scale = offered.rating_scale;
    $("rate-items").replaceChildren(
      ...offered.items.map((item) => card(item, { actions: [stars(item, () => attempt(rated))] })));
  }
  await rated();
}

async function keep() {
  const answer = await call("/v1/onboarding/ratings", { ratings: ratings(), n: ROWS });
  const until = answer.expires_at ? new Date(answer.expires_at).toLocaleString() : "";
  $("kept").textContent = `You are user ${answer.user_id} until ${until}; your ratings are ${answer.strength.level}.`;
  $("user").value = answer.user_id;
}

async function search() {
  const answer = await call(`/v1/items?search=${encodeURIComponent($("search").value)}&n=${ROWS}`);
  showOrigin(answer);
  $("found").replaceChildren(...answer.items.map((item) => card(item, { actions: [similarButton(item)] })));
  if (!answer.items.length) $("found").textContent = "No title holds all of these words.";
}

function open(view) {
  state.view = $("main").dataset.view = view;
  for (const node of document.querySelectorAll("nav button")) {
    node.setAttribute("aria-pressed", String(node.dataset.view === view));
  }
  for (const node of document.querySelectorAll("main section[data-view]")) node.hidden = node.dataset.view !== view;
  if (view === "rate") attempt(openRating);
  if (view === "search") attempt(search);
  if (view === "people" && state.user !== null) attempt(() => showUser(state.user, false));
}

async function begin() {
  const [info, demo] = await Promise.all([call("/info"), call("/v1/demo/users")]);
  $("key-form").hidden = true;
  state.scale = info.rating_scale;
  for (const genre of info.genres) $("genre").add(new Option(genre, genre));
  $("users").replaceChildren(...demo.users.map((user) => {
    const item = document.createElement("li");
    const choice = button(`${user.label} (${user.user_id})`, `User ${user.user_id}: ${user.label}`, () => attempt(() => showUser(user.user_id, false)));
    choice.dataset.user = String(user.user_id);
    item.append(choice);
    return item;
  }));
  if (demo.users.length) await showUser(demo.users[0].user_id, false);
  else await recommend({ history: [] }, "Popular now", false);
}

function submitted(form, work) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(work);
  });
}

document.querySelectorAll("nav button").forEach((node) => node.addEventListener("click", () => open(node.dataset.view)));
submitted("user-form", () => showUser($("user").value.trim(), true));
submitted("search-form", search);
submitted("key-form", () => {
  sessionStorage.setItem("key", $("key").value);
  return begin();
});
$("genre").addEventListener("change", () => attempt(() =>
  state.view === "rate" ? rated() : state.user === null ? recommend({ history: [] }, "Popular now", false) : showUser(state.user, false)));
$("keep").addEventListener("click", () => attempt(keep));
$("reset").addEventListener("click", () => {
  state.ratings.clear();
  $("rate-items").replaceChildren();
  $("kept").textContent = "";
  attempt(openRating);
});
attempt(begin);

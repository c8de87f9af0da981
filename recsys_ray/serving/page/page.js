// The page of the service. It only calls the public API of the address it came from; its state is its address.
import { $, address, attempt, call, path, showOrigin, state, submitted } from "./api.js";
import { card } from "./cards.js";
import { showItem } from "./item.js";
import { choices, controlled, showControls, showUser } from "./people.js";
import { keep, openRating, startOver } from "./rate.js";

let facts = null;

async function begin() {
  const [info, demo, models] = await Promise.all([call("/info"), call("/v1/demo/users"), call("/v1/models")]);
  $("key-form").hidden = true;
  facts = { demo: demo.users, newest: info.newest_year };
  for (const genre of info.genres) $("genre").add(new Option(genre, genre));
  if (models.variants.length > 1) {
    for (const { variant, model } of models.variants) $("beside").add(new Option(`variant ${variant} (${model})`, variant));
  }
  choices(demo.users, go);
}

async function search(text) {
  $("search").value = text;
  const answer = await call(`/v1/items?search=${path(text)}&n=24`);
  showOrigin(answer);
  $("found").replaceChildren(...answer.items.map((item) => card(item)));
  $("found-note").textContent = answer.items.length ? "" : "No title holds all of these words.";
}

// Shows what the address says.
async function show() {
  if (!facts) await begin();
  const asked = state();
  const view = asked.item ? "item" : asked.view || "people";
  for (const node of document.querySelectorAll("nav [data-view]")) {
    if (node.dataset.view === view) node.setAttribute("aria-current", "page"); else node.removeAttribute("aria-current");
  }
  for (const node of document.querySelectorAll("main > section")) node.hidden = node.dataset.view !== view;
  document.title = "Recommendations";
  if (view === "item") return showItem();
  if (view === "rate") return openRating();
  if (view === "search") return search(asked.q || "");
  if (!asked.user) {
    const user = facts.demo.length ? facts.demo[0].user_id : "somebody new";
    history.replaceState(null, "", address({ ...asked, user }));
  }
  showControls(state());
  return showUser(facts.newest);
}

function go(place) {
  if (place !== location.search) history.pushState(null, "", place);
  return attempt(show);
}

// Links of the page to itself change its address without loading it again.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='?']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  window.scrollTo(0, 0);
});
window.addEventListener("popstate", () => attempt(show));
controlled(go);
submitted("user-form", () => go(address({ ...state(), view: "people", user: $("user").value.trim() })));
submitted("search-form", () => go(address({ view: "search", q: $("search").value })));
submitted("key-form", () => {
  sessionStorage.setItem("key", $("key").value);
  return show();
});
$("keep").addEventListener("click", () => attempt(() => keep((user) => { $("user").value = user; })));
$("reset").addEventListener("click", () => attempt(startOver));
attempt(show);

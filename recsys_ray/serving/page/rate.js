// A visitor's own stars, and the list that they make.
import { $, call, ROWS, showOrigin } from "./api.js";
import { card, rating, reasonOf, shelf, stars } from "./cards.js";

const given = new Map();
let offered = null;
let turn = 0;

const ratings = () => [...given].map(([item_id, count]) => ({ item_id, rating: rating(count, offered.rating_scale) }));

function strength(count) {
  const left = offered.minimum - count;
  if (!count) return `${offered.minimum} ratings are enough to begin with, 10 to 15 are good. Your list changes with each.`;
  const more = left > 0 ? `${left} more to keep your list.` : count < 10 ? "A few more make it better." : "That says a lot about you.";
  return `${count} rated. ${more}`;
}

function rateable(item, more = {}) {
  const change = (count) => {
    if (count) given.set(item.item_id, count); else given.delete(item.item_id);
    return rated();
  };
  return card(item, { ...more, actions: [stars(item, given.get(item.item_id) || 0, change)] });
}

async function rated() {
  const mine = ++turn;
  $("meter").value = given.size;
  $("keep").disabled = given.size < offered.minimum;
  $("strength").textContent = strength(given.size);
  const answer = await call("/v1/recommendations", { history: ratings(), n: ROWS, explain: true });
  if (mine !== turn) return;
  showOrigin(answer);
  const cards = answer.items.map((item) => rateable(item, { reason: reasonOf(item) }));
  $("rated-list").replaceChildren(shelf(given.size ? "For you, so far" : "Popular now", "", cards, { id: "list", grid: true }));
}

export async function openRating() {
  if (!offered) {
    offered = await call("/v1/onboarding/items");
    $("rate-items").replaceChildren(...offered.items.map((item) => rateable(item)));
  }
  await rated();
}

export async function startOver() {
  given.clear();
  offered = null;
  $("kept").textContent = "";
  await openRating();
}

export async function keep(go) {
  const answer = await call("/v1/onboarding/ratings", { ratings: ratings(), n: ROWS });
  const until = answer.expires_at ? new Date(answer.expires_at).toLocaleString() : "";
  $("kept").textContent = `You are user ${answer.user_id} until ${until}; your ratings are ${answer.strength.level}.`;
  go(answer.user_id);
}


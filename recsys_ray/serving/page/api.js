// Calls of the service that the page came from, its address as the page's state, and what went wrong.

export const $ = (id) => document.getElementById(id);
export const ROWS = 12;
export const path = encodeURIComponent;

export async function call(place, body) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers["X-API-Key"] = key;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(place, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await answer.json();
  if (answer.ok) return found;
  $("key-form").hidden = ![401, 403].includes(answer.status);
  throw new Error(found.error || `The service answered ${answer.status}.`);
}

// Runs one action of the user; what fails is said on the page.
export async function attempt(work) {
  $("problem").hidden = true;
  try {
    await work();
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
}

// The state of the page is its address: a reload, a bookmark and a shared link show the same.
export function state() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

export function address(changes) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(changes)) if (value !== "" && value != null) query.set(name, value);
  return `?${query}`;
}

export function showOrigin(answer) {
  const cached = answer.cached ? ", from the cache" : "";
  $("origin").textContent =
    `model ${answer.model} · variant ${answer.variant} · run ${answer.run_id} · ${answer.took_ms.toFixed(1)} ms${cached}`;
}

export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function submitted(form, work) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(work);
  });
}

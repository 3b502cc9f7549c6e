// The whole city: where people wait, the longest wait first; and the way to every board.

import { byId, follow, make, minutes } from "./live.js";

const WARN_SECONDS = 15 * 60;
const PROMISE_SECONDS = 20 * 60;

const loads = new Map();

function take(kind, data) {
  if (kind === "snapshot") loads.clear();
  for (const load of data.items ?? []) {
    if (load.waiting || load.open_counters) loads.set(load.unit, load);
    else loads.delete(load.unit);
  }
  byId("waiting").textContent = data.waiting;
  show();
}

function show() {
  const sorted = [...loads.values()].sort(
    (one, other) =>
      other.oldest_wait_seconds - one.oldest_wait_seconds || one.unit.localeCompare(other.unit),
  );
  byId("late").textContent = sorted.filter((load) => load.oldest_wait_seconds > PROMISE_SECONDS).length;
  byId("rows").replaceChildren(...sorted.map(rowOf));
  byId("nobody").hidden = sorted.length > 0;
}

function rowOf(load) {
  const row = make("tr");
  const oldest = make("td", minutes(load.waiting ? load.oldest_wait_seconds : null), "figure");
  oldest.classList.toggle("warn", load.oldest_wait_seconds > WARN_SECONDS);
  oldest.classList.toggle("late", load.oldest_wait_seconds > PROMISE_SECONDS);
  const name = make("td");
  name.append(linkTo(load.unit, load.name));
  row.append(
    name,
    make("td", load.waiting, "figure"),
    oldest,
    make("td", minutes(load.forecast_wait_seconds), "figure"),
    make("td", load.open_counters, "figure"),
  );
  return row;
}

function linkTo(unit, name) {
  const link = make("a", name);
  link.href = `/units/${encodeURIComponent(unit)}/board`;
  return link;
}

async function search() {
  const words = byId("q").value.trim();
  let found = [];
  if (words) {
    const answer = await fetch(`/v1/units?limit=8&q=${encodeURIComponent(words)}`);
    if (answer.ok) found = (await answer.json()).items;
  }
  if (words !== byId("q").value.trim()) return; // an answer to an older question
  const rows = found.map((unit) => {
    const row = make("li");
    row.append(linkTo(unit.code, unit.name));
    return row;
  });
  byId("found").replaceChildren(...rows);
}

byId("q").addEventListener("input", search);
follow("/v1/queue/overview/stream", take);

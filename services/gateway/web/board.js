// A centre's board: who is called where, who is next, how long it takes.

import { byId, follow, make, minutes } from "./live.js";

const CALLS_SHOWN = 4;
const FLASH_SECONDS = 12;
const STATES = {
  open: ["Trống", "free"],
  paused: ["Tạm dừng", "paused"],
  closed: ["Đóng", "closed"],
};

let board = null;
const calledAt = new Map(); // number → when it was called, as far as this screen has seen

function take(kind, data) {
  if (kind === "snapshot") {
    board = data;
  } else {
    const counters = new Map(board.counters.map((counter) => [counter.number, counter]));
    for (const counter of data.counters ?? []) counters.set(counter.number, counter);
    board = { ...board, ...data };
    board.counters = [...counters.values()].sort((one, other) => one.number - other.number);
  }
  if (kind === "change" && data.ticket?.status === "called") {
    calledAt.set(data.ticket.number, performance.now());
    byId("announcement").textContent = `Mời số ${data.ticket.number} đến quầy ${data.ticket.counter}`;
  }
  show();
}

function show() {
  byId("waiting").textContent = board.waiting;
  byId("oldest").textContent = minutes(board.waiting ? board.oldest_wait_seconds : null);
  byId("forecast").textContent = minutes(board.forecast_wait_seconds);
  showCalls();
  byId("counters").replaceChildren(...board.counters.filter(isOfUse).map(counterShown));
  byId("no-counter").hidden = board.counters.some(isOfUse);
  byId("next").replaceChildren(...board.next.map((ticket) => make("li", ticket.number)));
  byId("nobody").hidden = board.next.length > 0;
}

// Who is called stands first; who has come stays below for a while, for those who looked away.
function showCalls() {
  const now = performance.now();
  const come = board.counters.map((counter) => counter.ticket).filter((ticket) => ticket?.status === "serving");
  come.sort((one, other) => (one.called_at < other.called_at ? 1 : -1));
  const calls = [...board.called, ...come].slice(0, CALLS_SHOWN).map((ticket) => {
    const row = make("li", "", ticket.status);
    row.append(make("b", ticket.number), make("span", "→", "arrow"), desk(ticket.counter));
    const since = calledAt.get(ticket.number);
    const isNew = ticket.status === "called" && since !== undefined && now - since < FLASH_SECONDS * 1000;
    row.classList.toggle("new", isNew);
    return row;
  });
  byId("called").replaceChildren(...calls);
  byId("no-call").hidden = calls.length > 0;
}

function desk(number) {
  const shown = make("span", "", "desk");
  shown.append(make("small", "Quầy"), make("b", number));
  return shown;
}

const isOfUse = (counter) => counter.state !== "closed" || counter.ticket !== null;

function counterShown(counter) {
  const row = make("li", "", counter.state);
  row.append(desk(counter.number));
  if (counter.ticket) {
    row.classList.add(counter.ticket.status);
    row.append(make("b", counter.ticket.number, "ticket"));
  } else {
    const [vietnamese, english] = STATES[counter.state];
    const words = make("span", vietnamese, "state");
    words.append(make("i", english));
    row.append(words);
  }
  return row;
}

follow(`/v1/units/${encodeURIComponent(document.body.dataset.unit)}/queue/stream`, take);
setInterval(() => board && showCalls(), 1000); // a call stops being new

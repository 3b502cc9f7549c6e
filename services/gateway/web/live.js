// Follows a live stream, says when it is stale, and comes back by itself.

const STALE_SECONDS = 15;
const RETRY_SECONDS = 3;

export const byId = (id) => document.getElementById(id);

export function make(tag, text = "", ...classes) {
  const element = document.createElement(tag);
  element.textContent = text;
  element.classList.add(...classes);
  return element;
}

// Instants come with the city's own offset: what is written is what its clocks show.
export const clockTime = (instant) => instant.slice(11, 16);

export const minutes = (seconds) => (seconds === null ? "–" : `${Math.round(seconds / 60)}`);

export function follow(path, take) {
  let heard = performance.now();
  let asOf = null;
  let stream = null;

  function listen(kind) {
    stream.addEventListener(kind, (event) => {
      const data = JSON.parse(event.data);
      heard = performance.now();
      asOf = data.as_of;
      take(kind, data);
      check();
    });
  }

  function open() {
    stream = new EventSource(path);
    ["snapshot", "change", "heartbeat"].forEach(listen);
    // The browser resumes by itself, unless it was refused: then it has given up for ever.
    stream.addEventListener("error", () => {
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, RETRY_SECONDS * 1000);
    });
  }

  function check() {
    const stale = performance.now() - heard > STALE_SECONDS * 1000 || asOf === null;
    document.body.classList.toggle("stale", stale);
    const since = byId("stale");
    if (asOf !== null) {
      byId("time").textContent = clockTime(asOf);
      since.textContent = `Không được cập nhật từ ${clockTime(asOf)} · Not updated since ${clockTime(asOf)}`;
    }
  }

  open();
  setInterval(check, 1000);
}

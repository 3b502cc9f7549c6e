const cell = (tag, text, cls) => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (cls) element.className = cls;
  return element;
};
const row = (...cells) => {
  const element = document.createElement("tr");
  element.append(...cells);
  return element;
};
async function health() {
  const body = await (await fetch("/readyz")).json();
  const words = { ready: "Sẵn sàng · ready", degraded: "Hoạt động hạn chế · degraded", "not ready": "Chưa sẵn sàng · not ready" };
  const state = document.getElementById("state");
  state.textContent = words[body.status];
  state.className = body.status === "ready" ? "good" : "bad";
  const wrong = Object.entries(body.checks).filter(([, words]) => words !== "ok");
  const table = document.getElementById("checks");
  table.hidden = wrong.length === 0;
  table.replaceChildren(...wrong.map(([name, words]) => row(cell("td", name, "bad"), cell("td", words))));
}
async function queues() {
  const body = await (await fetch("/v1/queue/overview")).json();
  const minutes = (seconds) => (seconds === null ? "–" : Math.round(seconds / 60) + " phút");
  const head = row(...["Đơn vị · unit", "Chờ · waiting", "Lâu nhất · longest", "Dự kiến · forecast", "Quầy mở · counters"].map((text) => cell("th", text)));
  const rows = body.items.slice(0, 10).map((load) => row(
    cell("td", load.name), cell("td", load.waiting), cell("td", minutes(load.oldest_wait_seconds)),
    cell("td", minutes(load.forecast_wait_seconds)), cell("td", load.open_counters)));
  const none = row(cell("td", "Chưa có ai chờ. · Nobody waits."));
  document.getElementById("queue").replaceChildren(...(rows.length ? [head, ...rows] : [none]));
}
const often = (what) => { what().catch(() => {}); setInterval(() => what().catch(() => {}), 2000); };
often(health);
often(queues);

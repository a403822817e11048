// What was used, and what that costs, about.

import { get } from "./api.js";
import { Table, facts, failure, h, place, repeat } from "./dom.js";
import { bytes, count, money, time } from "./format.js";

const EVERY = 10_000;

export async function usage({ main, signal }) {
  const problem = h("div");
  const shown = h("div", null, h("p", { class: "waiting" }, "Loading…"));
  const topics = new Table("Topics", columns("Topic", (row) => h("a", { href: place("topics", row.topic) }, row.topic)), (row) => row.topic);
  const tokens = new Table("Tokens", columns("Token", (row) => row.description || row.token || "without a token"), (row) => row.token ?? "");
  const tables = h("div", { hidden: true }, h("h2", null, "Topics"), topics.element, h("h2", null, "Tokens"), tokens.element);
  main.append(problem, shown, tables);
  await repeat(EVERY, signal, async () => {
    try {
      const told = await get(["usage"], null, signal);
      shown.replaceChildren(totals(told));
      topics.update(told.topics ?? []);
      tokens.update(told.tokens ?? []);
      tables.hidden = false;
    } catch (error) {
      if (error.status !== 404) throw error;
      tables.hidden = true;
      shown.replaceChildren(h("p", { class: "empty" }, "This cluster does not tell its usage: not available."));
    }
  }, (error) => {
    shown.querySelector(".waiting")?.remove();
    problem.replaceChildren(...(error ? [failure(error)] : []));
  });
}

function totals({ since, totals: all = {}, cost }) {
  const requests = Object.entries(all.requests ?? {}).map(([kind, number]) => [`${kind.toUpperCase()} requests`, count(number)]);
  const currency = cost?.currency;
  const prices = cost
    ? [
        ["Requests cost", money(cost.requests, currency)],
        ["Storage a month", money(cost.storage_per_month, currency)],
        ["Together", h("strong", null, money(cost.total, currency))],
      ]
    : [];
  return h(
    "div",
    null,
    h("p", null, `Since ${time(since)}. Costs are estimates by the prices that the cluster is told.`),
    facts([
      ...prices,
      ["Stored", bytes(all.stored_bytes)],
      ["Records in", count(all.records_in)],
      ["Bytes in", bytes(all.bytes_in)],
      ["Records out", count(all.records_out)],
      ["Bytes out", bytes(all.bytes_out)],
      ...requests,
    ]),
  );
}

function columns(title, cell) {
  return [
    { title, head: true, fixed: true, cell: (row) => asNode(cell(row)) },
    { title: "Records in", number: true, cell: (row) => count(row.records_in) },
    { title: "Bytes in", number: true, cell: (row) => bytes(row.bytes_in) },
    { title: "Records out", number: true, cell: (row) => count(row.records_out) },
    { title: "Bytes out", number: true, cell: (row) => bytes(row.bytes_out) },
    { title: "Stored", number: true, cell: (row) => bytes(row.stored_bytes) },
    { title: "Cost", number: true, cell: (row) => (row.cost === undefined ? "–" : money(row.cost)) },
  ];
}

function asNode(content) {
  return content instanceof Node ? content : h("span", null, content);
}

// What was used, and what that costs, about.

import { get } from "./api.js";
import { Table, facts, failure, h, place, repeat } from "./dom.js";
import { bytes, count, money, time } from "./format.js";

const EVERY = 10_000;

export async function usage({ main, signal }) {
  const problem = h("div");
  const shown = h("div", null, h("p", { class: "waiting" }, "Loading…"));
  const topics = new Table("Topics", columns("Topic", (row) => h("a", { href: place("topics", row.topic) }, row.topic)), (row) => row.topic);
  const tokens = new Table("Tokens", columns("Token", (row) => row.token), (row) => row.token);
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

function totals({ month, log_time: until, traffic = {}, object_store_requests: sent = {}, stored_bytes: stored, dead_bytes: dead, cost = {} }) {
  const { requests_dollars: requests, storage_dollars_per_month: storage } = cost;
  const together = (requests ?? 0) + (storage ?? 0);
  return h(
    "div",
    null,
    h("p", null, `${month ?? "This month"}, as far as it is reported until ${time(until)}. Costs are estimates by the prices that the cluster is told.`),
    facts([
      ["Requests cost", money(requests)],
      ["Storage a month", money(storage)],
      ["Together", h("strong", null, money(together))],
      ["Stored", bytes(stored)],
      ["To be deleted", bytes(dead)],
      ["Records in", count(traffic.records_in)],
      ["Bytes in", bytes(traffic.bytes_in)],
      ["Records out", count(traffic.records_out)],
      ["Bytes out", bytes(traffic.bytes_out)],
      ...Object.entries(sent).map(([kind, number]) => [`${kind.toUpperCase()} requests`, count(number)]),
    ]),
  );
}

/** What a topic costs in a month, or what was asked of the object store with a token. */
function cost({ cost: both, requests_dollars: requests }) {
  return both ? both.requests_dollars + both.storage_dollars_per_month : requests;
}

function columns(title, cell) {
  return [
    { title, head: true, fixed: true, cell: (row) => asNode(cell(row)) },
    { title: "Records in", number: true, cell: (row) => count(row.traffic?.records_in) },
    { title: "Bytes in", number: true, cell: (row) => bytes(row.traffic?.bytes_in) },
    { title: "Records out", number: true, cell: (row) => count(row.traffic?.records_out) },
    { title: "Bytes out", number: true, cell: (row) => bytes(row.traffic?.bytes_out) },
    { title: "Stored", number: true, cell: (row) => bytes(row.stored_bytes) },
    { title: "Cost", number: true, cell: (row) => money(cost(row)) },
  ];
}

function asNode(content) {
  return content instanceof Node ? content : h("span", null, content);
}

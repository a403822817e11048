// A topic: its partitions, how full and how busy they are, and its configuration.

import { get } from "./api.js";
import { Table, facts, failure, h, place, repeat } from "./dom.js";
import { Rates, bytes, count, rate, time } from "./format.js";

const EVERY = 2_000;

/** The pages of a topic. */
export function sections(name, current) {
  const link = (text, href, is) => h("a", { href, "aria-current": is === current ? "page" : null }, text);
  return h(
    "nav",
    { class: "sections", "aria-label": `Topic ${name}` },
    link("Partitions", place("topics", name), "partitions"),
    link("Records", place("topics", name, "records"), "records"),
  );
}

export async function topic({ main, name, signal }) {
  const rates = new Rates();
  const problem = h("div");
  const summary = h("div", null, h("p", { class: "waiting" }, "Loading…"));
  const partitions = new Table("Partitions", columns(name), ({ partition }) => partition);
  const config = new Table("Configuration", [
    { title: "Setting", head: true, mono: true, cell: ([key]) => key },
    { title: "Value", mono: true, cell: ([, value]) => value },
  ], ([key]) => key);
  const below = h("div", { hidden: true }, h("h2", null, "Partitions"), partitions.element, h("h2", null, "Configuration"), config.element);
  main.append(sections(name, "partitions"), problem, summary, below);
  await repeat(EVERY, signal, async () => {
    const topic = await get(["topics", name], null, signal);
    const now = performance.now();
    const rows = topic.partition_offsets.map((row) => ({
      ...row,
      recordRate: rates.of(`${topic.topic_id} ${row.partition} records`, row.high_watermark, now),
      byteRate: rates.of(`${topic.topic_id} ${row.partition} bytes`, row.bytes, now),
    }));
    summary.replaceChildren(totals(topic, rows));
    partitions.update(rows);
    config.update(Object.entries(topic.config));
    below.hidden = false;
  }, (error) => {
    summary.querySelector(".waiting")?.remove();
    problem.replaceChildren(...(error ? [failure(error)] : []));
  });
}

function totals(topic, rows) {
  const sum = (of) => rows.reduce((total, row) => total + of(row), 0);
  const known = rows.every((row) => row.recordRate !== null);
  return facts([
    ["Records", count(sum((row) => row.high_watermark - row.log_start_offset))],
    ["Size", bytes(sum((row) => row.bytes))],
    ["New records", known ? rate(sum((row) => row.recordRate)) : "–"],
    ["Partitions", count(topic.partitions)],
    ["Created", time(topic.created)],
    ["Id", h("span", { class: "mono" }, topic.topic_id)],
  ]);
}

function columns(name) {
  const href = ({ partition }) => `${place("topics", name, "records")}?partition=${partition}&from=last`;
  return [
    {
      title: "Partition",
      head: true,
      fixed: true,
      number: true,
      cell: (row) => h("a", { href: href(row), "aria-label": `Records of partition ${row.partition}` }, String(row.partition)),
    },
    { title: "First offset", number: true, cell: (row) => count(row.log_start_offset) },
    { title: "Next offset", number: true, cell: (row) => count(row.high_watermark) },
    { title: "Records", number: true, cell: (row) => count(row.high_watermark - row.log_start_offset) },
    { title: "Size", number: true, cell: (row) => bytes(row.bytes) },
    { title: "New records", number: true, cell: (row) => rate(row.recordRate) },
    { title: "Growth", number: true, cell: (row) => rate(row.byteRate, "bytes") },
  ];
}

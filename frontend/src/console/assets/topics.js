// The list of topics, and making one.

import { call, get, path } from "./api.js";
import { Outcome, Table, failure, field, h, options, place, repeat, submits } from "./dom.js";
import { Rates, bytes, count, duration, rate } from "./format.js";

const PAGE = 25;
const EVERY = 5_000;
const AT_A_TIME = 4;

export async function topics({ main, query, signal }) {
  const prefix = query.get("prefix") ?? "";
  const after = query.get("after");
  const rates = new Rates();
  // What was seen last is shown until it is known anew.
  let known = new Map();
  const problem = h("div");
  const table = new Table("Topics", columns(), (topic) => topic.name, prefix ? "No topic begins like that." : "There are no topics yet.");
  const pages = h("p", { class: "pages" });
  const create = creation();
  main.append(search(prefix), problem, h("p", { class: "waiting" }, "Loading…"), table.element, pages, create);
  table.element.hidden = true;
  await repeat(EVERY, signal, async () => {
    const page = await get(["topics"], { prefix: prefix || null, after, limit: PAGE }, signal);
    main.querySelector(".waiting")?.remove();
    table.element.hidden = false;
    create.open ||= page.topics.length === 0 && !prefix;
    const rows = page.topics.map((topic) => ({ ...known.get(topic.name), ...topic }));
    table.update(rows);
    pages.replaceChildren(...links(prefix, after, page.next_after));
    await inTurns(rows, async (row) => {
      Object.assign(row, sums(await get(["topics", row.name], null, signal), rates));
    });
    known = new Map(rows.map((row) => [row.name, row]));
    table.update(rows);
  }, (error) => {
    main.querySelector(".waiting")?.remove();
    problem.replaceChildren(...(error ? [failure(error)] : []));
  });
}

function sums(topic, rates) {
  const sum = (of) => topic.partition_offsets.reduce((total, partition) => total + of(partition), 0);
  const ends = sum((partition) => partition.high_watermark);
  const size = sum((partition) => partition.bytes);
  return {
    records: ends - sum((partition) => partition.log_start_offset),
    size,
    recordRate: rates.of(`${topic.topic_id} records`, ends, performance.now()),
  };
}

async function inTurns(rows, task) {
  const waiting = [...rows];
  const turn = async () => {
    for (let row = waiting.shift(); row; row = waiting.shift()) {
      try {
        await task(row);
      } catch (error) {
        // It may have been deleted since the list was made.
        if (error.status !== 404) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, turn));
}

function columns() {
  const kept = (topic) => {
    const millis = Number(topic.config["retention.ms"]);
    return Number.isFinite(millis) && millis >= 0 ? duration(millis) : "for ever";
  };
  return [
    { title: "Topic", head: true, fixed: true, cell: (topic) => h("a", { href: place("topics", topic.name) }, topic.name) },
    { title: "Partitions", number: true, cell: (topic) => count(topic.partitions) },
    { title: "Records", number: true, cell: (topic) => count(topic.records) },
    { title: "Size", number: true, cell: (topic) => bytes(topic.size) },
    { title: "New records", number: true, cell: (topic) => rate(topic.recordRate) },
    { title: "Kept", cell: kept },
    { title: "Live", fixed: true, cell: (topic) => h("a", { href: place("topics", topic.name, "records"), "aria-label": `Records of ${topic.name}` }, "Records") },
  ];
}

function search(prefix) {
  const input = h("input", { type: "search", value: prefix, autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "row", role: "search" }, field("Name begins with", input), h("button", null, "Find"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    location.hash = text ? `#/topics?${new URLSearchParams({ prefix: text })}` : "#/topics";
  });
  return form;
}

function links(prefix, after, next) {
  const to = (from) => {
    const query = new URLSearchParams(Object.entries({ prefix, after: from }).filter(([, value]) => value));
    return query.size > 0 ? `#/topics?${query}` : "#/topics";
  };
  return [
    after ? h("a", { href: to(null) }, "First page") : null,
    next ? h("a", { href: to(next) }, "Next page") : null,
  ].filter(Boolean);
}

function creation() {
  const name = h("input", { required: true, autocomplete: "off", spellcheck: "false", maxlength: "249", pattern: "[A-Za-z0-9._\\-]+" });
  const partitions = h("input", { type: "number", min: "1", max: "10000", value: "1", required: true });
  const policy = h("select", null, options([["delete", "delete old records"], ["compact", "keep the newest record of each key"], ["compact,delete", "both"]]));
  const retention = h("input", { type: "number", min: "0", step: "any", placeholder: "7" });
  const outcome = new Outcome();
  const form = h(
    "form",
    { autocomplete: "off" },
    h(
      "div",
      { class: "fields" },
      field("Name", name, "Letters, digits, dots, underscores, hyphens."),
      field("Partitions", partitions, "There can be more later, never fewer."),
      field("Clean up", policy),
      field("Keep records for days", retention, "Empty: what the cluster does by default."),
    ),
    h("button", { class: "main" }, "Create the topic"),
    outcome.element,
  );
  submits(form, outcome, async () => {
    const config = {};
    if (policy.value !== "delete") config["cleanup.policy"] = policy.value;
    if (retention.value !== "") config["retention.ms"] = Math.round(Number(retention.value) * 86_400_000);
    const topic = name.value.trim();
    await call("PUT", path(["topics", topic]), { body: { partitions: Number(partitions.value), config } });
    outcome.succeeded(`Topic ${topic} is there. `, h("a", { href: place("topics", topic, "records") }, "See its records"));
    form.reset();
  });
  return h("details", { class: "card" }, h("summary", null, "Create a topic"), form);
}

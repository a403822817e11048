// Groups: who is in them, and how far they are behind.

import { get } from "./api.js";
import { Table, facts, failure, field, h, place, repeat } from "./dom.js";
import { count, ranges, time } from "./format.js";

const EVERY = 2_000;
const PAGE = 200;
// So many pages of offsets are asked for: a group may have more.
const OFFSET_PAGES_MAX = 20;

export async function groups({ main, query, signal }) {
  const prefix = query.get("prefix") ?? "";
  const after = query.get("after");
  const problem = h("div");
  const pages = h("p", { class: "pages" });
  const table = new Table("Groups", [
    { title: "Group", head: true, fixed: true, cell: (group) => h("a", { href: place("groups", group.group) }, group.group) },
    { title: "State", cell: (group) => phase(group.phase) },
    { title: "Members", number: true, cell: (group) => count(group.members) },
    { title: "Partitions with an offset", number: true, cell: (group) => count(group.offsets) },
  ], (group) => group.group, prefix ? "No group begins like that." : "There are no groups yet. A group is made by its first member.");
  table.element.hidden = true;
  main.append(search(prefix), problem, h("p", { class: "waiting" }, "Loading…"), table.element, pages);
  await repeat(EVERY * 2, signal, async () => {
    const page = await get(["groups"], { prefix: prefix || null, after, limit: PAGE }, signal);
    main.querySelector(".waiting")?.remove();
    table.element.hidden = false;
    table.update(page.groups);
    const next = new URLSearchParams({ ...(prefix ? { prefix } : {}), after: page.next_after });
    pages.replaceChildren(...(page.next_after ? [h("a", { href: `#/groups?${next}` }, "Next page")] : []));
  }, (error) => {
    main.querySelector(".waiting")?.remove();
    problem.replaceChildren(...(error ? [failure(error)] : []));
  });
}

function phase(word) {
  return { empty: "no members", rebalancing: "sharing out partitions", stable: "stable" }[word] ?? word;
}

function search(prefix) {
  const input = h("input", { type: "search", value: prefix, autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "row", role: "search" }, field("Name begins with", input), h("button", null, "Find"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    location.hash = text ? `#/groups?${new URLSearchParams({ prefix: text })}` : "#/groups";
  });
  return form;
}

export async function group({ main, name, signal }) {
  const problem = h("div");
  const summary = h("div", null, h("p", { class: "waiting" }, "Loading…"));
  const members = new Table("Members", memberColumns(), (member) => member.member, "Nobody is in it now.");
  const offsets = new Table("Offsets and lag", offsetColumns(), (row) => `${row.topic_id} ${row.partition}`, "It has no offsets yet.");
  const more = h("p");
  const below = h("div", { hidden: true }, h("h2", null, "Members"), members.element, h("h2", null, "Offsets and lag"), offsets.element, more);
  main.append(problem, summary, below);
  await repeat(EVERY, signal, async () => {
    const [group, told] = await Promise.all([get(["groups", name], null, signal), allOffsets(name, signal)]);
    const lag = `${count(told.lag)}${told.isCut ? " or more" : ""}`;
    const shown = facts([
      ["Lag", h("strong", { id: "lag" }, lag)],
      ["State", phase(group.phase)],
      ["Members", count(group.members.length)],
      ["Shared out", group.assignor],
      ["Epoch", count(group.epoch)],
      ["Last active", time(group.last_active)],
    ]);
    summary.replaceChildren(shown);
    members.update(group.members);
    offsets.update(told.offsets);
    more.textContent = told.isCut ? `Only the first ${count(told.offsets.length)} partitions are shown.` : "";
    below.hidden = false;
  }, (error) => {
    summary.querySelector(".waiting")?.remove();
    problem.replaceChildren(...(error ? [failure(error)] : []));
  });
}

async function allOffsets(name, signal) {
  const offsets = [];
  let [lag, after] = [0, null];
  for (let page = 0; page < OFFSET_PAGES_MAX; page += 1) {
    const told = await get(["groups", name, "offsets"], { after }, signal);
    offsets.push(...told.offsets);
    lag += told.lag;
    after = told.next_after ?? null;
    if (after === null) return { offsets, lag, isCut: false };
  }
  return { offsets, lag, isCut: true };
}

function memberColumns() {
  const held = (topics) => topics.map(({ topic, partitions }) => `${topic}: ${ranges(partitions)}`).join("; ") || "–";
  return [
    { title: "Member", head: true, mono: true, cell: (member) => member.member },
    { title: "Who", cell: (member) => member.client || "–" },
    { title: "Holds", cell: (member) => held(member.assignment) },
    { title: "Lets go of", cell: (member) => held(member.releasing) },
    { title: "Waits for", cell: (member) => held(member.awaiting) },
    { title: "Epoch", number: true, cell: (member) => count(member.epoch) },
  ];
}

function offsetColumns() {
  return [
    { title: "Topic", head: true, fixed: true, cell: (row) => h("a", { href: place("topics", row.topic) }, row.topic) },
    { title: "Partition", number: true, cell: (row) => count(row.partition) },
    { title: "Next to read", number: true, cell: (row) => (row.offset === null ? "none" : count(row.offset)) },
    { title: "End", number: true, cell: (row) => count(row.high_watermark) },
    { title: "Lag", number: true, cell: (row) => count(row.lag) },
    { title: "Member", mono: true, cell: (row) => row.owner ?? "–" },
    { title: "Committed", cell: (row) => time(row.committed) },
  ];
}

// The records of a topic: from wherever one likes, and then as they come.

import { events, get, path, Problem } from "./api.js";
import { announce, failure, field, h, options, pause } from "./dom.js";
import { count, counted, time } from "./format.js";
import { production } from "./produce.js";
import { encode, open, preview, weight } from "./record.js";
import { sections } from "./topic.js";

const KEPT = 500;
const KEPT_BYTES = 16 * 1024 * 1024;
const LAST = 20;
const STARTS = [
  ["last", `the last ${LAST} of each`],
  ["latest", "now on"],
  ["earliest", "the beginning"],
  ["offset", "an offset"],
  ["time", "a time"],
];

export async function records({ main, name, query, signal }) {
  const form = new Search(name, query);
  const list = new List();
  const status = h("p", { class: "state" });
  const progress = h("progress", { max: "1", hidden: true, "aria-label": "How much was looked at" });
  const problem = h("div");
  const held = h("button", { type: "button", "data-key": "p", "aria-pressed": "false" }, "Pause");
  const clear = h("button", { type: "button", click: () => list.clear() }, "Clear");
  const bar = h("div", { class: "bar" }, status, progress, held, clear);
  main.append(sections(name, "records"), production(name), form.element, problem, bar, list.element);

  const view = { name, list, status, progress, problem, isHeld: false };
  held.addEventListener("click", () => {
    view.isHeld = !view.isHeld;
    held.textContent = view.isHeld ? "Go on" : "Pause";
    held.setAttribute("aria-pressed", String(view.isHeld));
    view.goOn?.();
    say(view);
  });
  let search = new AbortController();
  const start = () => {
    search.abort(new DOMException("another search began", "AbortError"));
    search = new AbortController();
    list.clear();
    problem.replaceChildren();
    const ends = AbortSignal.any([signal, search.signal]);
    return follow(view, form.wanted(), ends).catch((error) => {
      if (ends.aborted) return;
      Object.assign(view, { state: "Stopped." });
      say(view);
      progress.hidden = true;
      problem.replaceChildren(failure(error));
    });
  };
  form.element.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", form.address());
    announce("Searching.");
    start();
  });
  await start();
}

/** What to look for, as a form and as part of the address. */
class Search {
  constructor(name, query) {
    this.name = name;
    const given = query.get("from");
    const from = STARTS.some(([start]) => start === given) ? given : "last";
    this.partition = h("input", { type: "number", min: "0", step: "1", placeholder: "all", value: query.get("partition") ?? "" });
    this.from = h("select", { change: () => this.#fit() }, options(STARTS, from));
    this.offset = h("input", { type: "number", min: "0", step: "1", value: query.get("offset") ?? "0" });
    this.time = h("input", { type: "datetime-local", step: "1", value: query.get("time") ?? "" });
    this.key = h("input", { autocomplete: "off", spellcheck: "false", placeholder: "any", value: query.get("key") ?? "" });
    this.offsetField = field("Offset", this.offset);
    this.timeField = field("Time", this.time);
    this.element = h(
      "form",
      { class: "row", role: "search", "aria-label": "Which records", autocomplete: "off" },
      field("From", this.from),
      this.offsetField,
      this.timeField,
      field("Partition", this.partition),
      field("Only with the key", this.key),
      h("button", { class: "main" }, "Show"),
    );
    this.#fit();
  }

  #fit() {
    const from = this.from.value;
    this.offsetField.hidden = from !== "offset";
    this.timeField.hidden = from !== "time";
    this.offset.required = from === "offset";
    this.time.required = from === "time";
    this.partition.required = from === "offset";
  }

  wanted() {
    const partition = this.partition.value === "" ? null : Number(this.partition.value);
    const key = this.key.value === "" ? null : encode(this.key.value);
    return { from: this.from.value, offset: Number(this.offset.value), time: new Date(this.time.value).getTime(), partition, key };
  }

  address() {
    const from = this.from.value;
    const query = new URLSearchParams({ from });
    if (from === "offset") query.set("offset", this.offset.value);
    if (from === "time") query.set("time", this.time.value);
    if (this.partition.value !== "") query.set("partition", this.partition.value);
    if (this.key.value !== "") query.set("key", this.key.value);
    return `#/topics/${encodeURIComponent(this.name)}/records?${query}`;
  }
}

/** Finds where to start, and reads on from there until it is told to stop; a broken connection is made again. */
async function follow(view, wanted, signal) {
  Object.assign(view, { looked: 0, found: 0, state: "Looking where to start…", wanted });
  say(view);
  const cursor = await Cursor.find(view.name, wanted, signal);
  let failures = 0;
  while (!signal.aborted) {
    try {
      view.state = failures > 0 ? "Connecting again…" : "Connecting…";
      say(view);
      for await (const batch of events(cursor.target(), { lastId: cursor.lastId, signal })) {
        failures = 0;
        take(view, cursor, batch, wanted);
        await nextFrame(signal);
        if (view.isHeld) await held(view, signal);
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Problem && !error.retryable)) throw error;
      failures += 1;
      view.problem.replaceChildren(...(failures > 3 ? [failure(error)] : []));
    }
    const wait = Math.min(500 * 2 ** Math.min(failures, 5), 10_000);
    view.state = `The connection has ended; connecting again in ${Math.ceil(wait / 1_000)} s.`;
    say(view);
    await pause(wait, signal);
  }
}

function take(view, cursor, batch, wanted) {
  const matching = [];
  for (const { id, event, data } of batch) {
    if (event === "problem") {
      const document = JSON.parse(data);
      throw new Problem(document.status ?? 500, document, document.request_id);
    }
    if (id !== undefined) cursor.moved(id);
    if (event !== undefined || data === null) continue;
    const record = JSON.parse(data);
    record.partition ??= wanted.partition;
    view.looked += 1;
    if (wanted.key === null || record.key === wanted.key) matching.push(record);
  }
  view.found += matching.length;
  view.list.add(matching);
  view.problem.replaceChildren();
  const part = cursor.part();
  view.progress.hidden = part >= 1;
  view.progress.value = part;
  view.state = part >= 1 ? "Live." : "Reading…";
  say(view);
}

function say(view) {
  const { state, looked, found, wanted, list, isHeld } = view;
  const what = wanted?.key ? `${counted(found, "record", "records")} with the key, of ${count(looked)}` : counted(looked, "record", "records");
  const kept = list.dropped > 0 ? `; the last ${count(list.size)} are shown` : "";
  const text = `${isHeld ? "Paused." : state} ${what}${kept}.`;
  if (view.status.textContent !== text) view.status.textContent = text;
}

function held(view, signal) {
  return new Promise((resolve) => {
    view.goOn = resolve;
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** Lets the page be drawn before it gets more; while nobody looks at it, it gets nothing. */
function nextFrame(signal) {
  return new Promise((resolve) => {
    requestAnimationFrame(resolve);
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** Where a reader is, in one partition or in all, and where the ends were when it began. */
class Cursor {
  constructor(name, partition, topicId, next, ends) {
    Object.assign(this, { name, partition, topicId, next, ends, starts: [...next] });
  }

  static async find(name, { from, offset, time: at, partition }, signal) {
    const topic = await get(["topics", name], null, signal);
    const bounds = topic.partition_offsets;
    const chosen = partition === null ? bounds : bounds.filter((bound) => bound.partition === partition);
    if (chosen.length === 0) throw new Error(`topic ${name} has partitions 0 to ${bounds.length - 1}`);
    let next;
    if (from === "time") {
      const { offsets } = await get(["topics", name, "offsets"], { at }, signal);
      next = chosen.map((bound) => offsets[bound.partition].offset);
    } else {
      next = chosen.map(({ log_start_offset: first, high_watermark: end }) => {
        if (from === "earliest") return first;
        if (from === "offset") return offset;
        return from === "last" ? Math.max(first, end - LAST) : end;
      });
    }
    return new Cursor(name, partition, topic.topic_id, next, chosen.map((bound) => bound.high_watermark));
  }

  target() {
    if (this.partition === null) return path(["topics", this.name, "records"], { follow: "true", encoding: "base64" });
    return path(["topics", this.name, "partitions", this.partition, "records"], { encoding: "base64" });
  }

  get lastId() {
    return this.partition === null ? `${this.topicId}:${this.next.join(",")}` : String(this.next[0]);
  }

  moved(id) {
    this.next = (this.partition === null ? id.slice(id.indexOf(":") + 1) : id).split(",").map(Number);
  }

  /** How much of what was there at the beginning was read, from 0 to 1. */
  part() {
    let [read, all] = [0, 0];
    this.ends.forEach((end, index) => {
      all += Math.max(0, end - this.starts[index]);
      read += Math.max(0, Math.min(this.next[index], end) - this.starts[index]);
    });
    return all === 0 ? 1 : read / all;
  }
}

/** Records, the newest below; the oldest go when there are too many. */
class List {
  constructor() {
    this.rows = [];
    this.bytes = 0;
    this.dropped = 0;
    this.body = h("tbody", { role: "rowgroup", keydown: (event) => this.#move(event), focusin: (event) => this.#hold(event.target) });
    // In narrow windows rows are no table rows to look at, but still to those who hear them.
    const head = (title, index) => h("th", { scope: "col", role: "columnheader", class: index < 2 ? "number" : null }, title);
    const heads = ["Partition", "Offset", "Time", "Key", "Value"].map(head);
    const table = h("table", { class: "records", role: "table" }, h("caption", { class: "hidden" }, "Records"), h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.body);
    this.element = h("div", { class: "scroller tail", role: "region", "aria-label": "Records", tabindex: "0" }, table);
  }

  get size() {
    return this.rows.length;
  }

  add(records) {
    if (records.length === 0) return;
    const isAtEnd = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    const fresh = records.slice(-KEPT);
    this.dropped += records.length - fresh.length;
    const rows = fresh.map((record) => ({ element: this.#row(record), bytes: weight(record) }));
    this.rows.push(...rows);
    this.bytes += rows.reduce((sum, row) => sum + row.bytes, 0);
    let over = 0;
    while (over < this.rows.length - 1 && (this.rows.length - over > KEPT || this.bytes > KEPT_BYTES)) {
      this.bytes -= this.rows[over].bytes;
      this.rows[over].element.remove();
      over += 1;
    }
    this.rows.splice(0, over);
    this.dropped += over;
    this.body.append(...rows.filter((row) => this.rows.includes(row)).map((row) => row.element));
    if (!this.body.querySelector("button[tabindex='0']")) this.#hold(this.body.querySelector("button"));
    const reads = this.body.contains(document.activeElement);
    if (isAtEnd && !reads) this.element.scrollTop = this.element.scrollHeight;
  }

  clear() {
    this.rows = [];
    this.bytes = 0;
    this.dropped = 0;
    this.body.replaceChildren();
  }

  #row(record) {
    const button = h("button", { type: "button", class: "value", tabindex: "-1", click: () => open(record, button) }, preview(record.value));
    return h(
      "tr",
      { role: "row" },
      h("td", { role: "cell", class: "number", "data-short": "partition" }, String(record.partition)),
      h("td", { role: "cell", class: "number", "data-short": "offset" }, count(record.offset)),
      h("td", { role: "cell", class: "time" }, time(record.timestamp)),
      h("td", { role: "cell", class: "key", "data-short": "key" }, preview(record.key)),
      h("td", { role: "cell" }, button),
    );
  }

  /** One record of the list is reached by the tab key, the others from there by arrows. */
  #hold(button) {
    if (!button?.matches("button")) return;
    this.body.querySelector("button[tabindex='0']")?.setAttribute("tabindex", "-1");
    button.setAttribute("tabindex", "0");
  }

  #move(event) {
    const row = event.target.closest("tr");
    const to = {
      ArrowUp: row?.previousElementSibling,
      ArrowDown: row?.nextElementSibling,
      Home: this.body.firstElementChild,
      End: this.body.lastElementChild,
    }[event.key];
    if (!to) return;
    event.preventDefault();
    to.querySelector("button").focus();
  }
}

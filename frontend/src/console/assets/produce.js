// Writes one record.

import { call, path } from "./api.js";
import { Outcome, field, h, submits, tick } from "./dom.js";
import { count } from "./format.js";

const HEADERS_MAX = 100;

export function production(topic) {
  const key = h("input", { autocomplete: "off", spellcheck: "false" });
  const value = h("textarea", { rows: "4", spellcheck: "false" });
  const tombstone = h("input", { type: "checkbox", change: () => (value.disabled = tombstone.checked) });
  const headers = h("textarea", { rows: "2", spellcheck: "false" });
  const partition = h("input", { type: "number", min: "0", step: "1" });
  const outcome = new Outcome();
  const form = h(
    "form",
    { autocomplete: "off" },
    h("div", { class: "fields" }, field("Key", key, "Empty: no key."), field("Partition", partition, "Empty: by the key, or any.")),
    field("Value", value),
    tick("No value (null): deletes the key in a compacted topic", tombstone),
    field("Headers", headers, "One a line: name: value"),
    h("button", { class: "main" }, "Produce the record"),
    outcome.element,
  );
  // The same record again is the same request, until it is known that the first one arrived.
  let sent = { body: null, idempotencyKey: null };
  submits(form, outcome, async () => {
    const record = { value: tombstone.checked ? null : value.value, headers: parse(headers.value) };
    if (key.value !== "") record.key = key.value;
    if (partition.value !== "") record.partition = Number(partition.value);
    const body = { records: [record] };
    if (JSON.stringify(body) !== JSON.stringify(sent.body)) sent = { body, idempotencyKey: random() };
    const answer = await call("POST", path(["topics", topic, "records"]), { body, headers: { "idempotency-key": sent.idempotencyKey } });
    sent = { body: null, idempotencyKey: null };
    const [{ partition: to, base_offset: offset }] = answer.results;
    outcome.succeeded(`The record is in partition ${to} at offset ${count(offset)}.`);
  });
  return h("details", { class: "card", id: "produce" }, h("summary", null, "Produce a record"), form);
}

function parse(text) {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  if (lines.length > HEADERS_MAX) throw new Error(`a record has at most ${HEADERS_MAX} headers here`);
  return lines.map((line) => {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`a header is written name: value, not ${line.slice(0, 50)}`);
    return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  });
}

function random() {
  const octets = crypto.getRandomValues(new Uint8Array(16));
  return `console-${Array.from(octets, (octet) => octet.toString(16).padStart(2, "0")).join("")}`;
}

// A record as people read it. Its bytes come as base64 and become text only if they are some.

import { announce, dialog, facts, h } from "./dom.js";
import { bytes, count, time } from "./format.js";

const PREVIEW = 160;
const HEX_PREVIEW = 32;
// More than this is put on the page only if one asks for it.
const SHOWN = 64 * 1024;
const CONTROLS_MAX = 10_000;

/** The bytes of text in base64, and the text if it is UTF-8; nothing for nothing. */
export function decode(base64) {
  if (base64 === null || base64 === undefined) return { kind: "null", size: 0 };
  const raw = atob(base64);
  const octets = Uint8Array.from(raw, (character) => character.charCodeAt(0));
  if (octets.length === 0) return { kind: "empty", size: 0, text: "" };
  try {
    return { kind: "text", size: octets.length, text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets) };
  } catch {
    return { kind: "bytes", size: octets.length, octets };
  }
}

/** UTF-8 as the API gives bytes. */
export function encode(text) {
  const octets = new TextEncoder().encode(text);
  let raw = "";
  for (let at = 0; at < octets.length; at += 8_192) raw += String.fromCharCode(...octets.subarray(at, at + 8_192));
  return btoa(raw);
}

function hex(octets, max) {
  const shown = Array.from(octets.subarray(0, max), (octet) => octet.toString(16).padStart(2, "0")).join(" ");
  return octets.length > max ? `${shown} …` : shown;
}

/** The beginning of a key or a value, in one line. */
export function preview(base64) {
  // What is not shown need not be decoded.
  const long = base64 !== null && base64.length > 4 * PREVIEW * 4;
  const part = decode(long ? base64.slice(0, 4 * PREVIEW * 4) : base64);
  if (part.kind === "null") return h("span", { class: "none" }, "null");
  if (part.kind === "empty") return h("span", { class: "none" }, "empty");
  if (part.kind === "bytes") {
    // A character may have been cut in two.
    const text = long ? cutText(part.octets) : null;
    if (text === null) return h("span", { class: "octets" }, hex(part.octets, HEX_PREVIEW));
    part.text = text;
  }
  const characters = Array.from(part.text.slice(0, 2 * PREVIEW + 2));
  const isCut = long || characters.length > PREVIEW;
  return h("span", { class: "text" }, visible(characters.slice(0, PREVIEW).join("").replace(/\s+/g, " ")), isCut ? "…" : "");
}

/** Text whose characters that cannot be seen, or that turn other text around, are shown by their numbers; if there are many, by a mark. */
function visible(text) {
  const parts = text.split(/([\p{Cc}\p{Cf}])/u);
  const isKept = (character) => character === "\n" || character === "\t";
  if (parts.length > CONTROLS_MAX) return [parts.map((part, index) => (index % 2 === 0 || isKept(part) ? part : "\uFFFD")).join("")];
  return parts.map((part, index) => {
    if (index % 2 === 0 || isKept(part)) return part;
    return h("span", { class: "control" }, `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
  });
}

function cutText(octets) {
  for (let cut = 1; cut <= 3; cut += 1) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets.subarray(0, octets.length - cut));
    } catch {
      // One byte less, perhaps.
    }
  }
  return null;
}

/** How much of the page's memory a record takes, about. */
export function weight(record) {
  const headers = record.headers.reduce((sum, [name, value]) => sum + name.length + (value?.length ?? 0), 0);
  return 200 + headers + (record.key?.length ?? 0) + (record.value?.length ?? 0);
}

/** Shows all of a record. */
export function open(record, back) {
  const headers = record.headers.map(([name, value]) => h("li", null, h("code", null, name), ": ", preview(value)));
  const shown = dialog(
    `Partition ${record.partition}, offset ${count(record.offset)}`,
    facts([
      ["Time", time(record.timestamp)],
      ["Timestamp", `${record.timestamp} ms`],
      ["Headers", record.headers.length > 0 ? h("ul", { class: "headers" }, headers) : "none"],
    ]),
    part("Key", record.key),
    part("Value", record.value),
  );
  shown.classList.add("record");
  shown.addEventListener("close", () => back?.focus());
}

function part(title, base64) {
  const found = decode(base64);
  const heading = h("h3", null, title, " ", h("small", null, describe(found)));
  if (found.kind === "null" || found.kind === "empty") return [heading];
  const isText = found.kind === "text";
  const whole = () => (isText ? pretty(found) : hex(found.octets, found.octets.length));
  const cut = found.size > SHOWN;
  const start = () => (isText ? found.text.slice(0, SHOWN) : hex(found.octets, SHOWN / 16));
  const block = h("pre", { tabindex: "0", "aria-label": title }, visible(cut ? start() : whole()));
  const all = h("button", {
    type: "button",
    click: () => {
      block.replaceChildren(...visible(whole()));
      all.remove();
    },
  }, `Show all ${bytes(found.size)}`);
  const copy = h("button", { type: "button", click: () => copyText(isText ? found.text : base64, block) }, isText ? "Copy" : "Copy as base64");
  return [heading, block, h("p", { class: "buttons" }, cut ? all : null, copy)];
}

function describe(found) {
  if (found.kind === "null") return "null";
  if (found.kind === "empty") return "empty";
  return found.kind === "text" ? bytes(found.size) : `${bytes(found.size)}, not UTF-8`;
}

/** JSON with its lines, if nothing is lost by that: numbers may have more digits than JavaScript knows. */
function pretty({ text, size }) {
  if (size > SHOWN || !/^\s*[[{]/.test(text)) return text;
  try {
    const parsed = JSON.parse(text);
    const squeeze = (json) => json.replace(/\s+/g, "");
    return squeeze(JSON.stringify(parsed)) === squeeze(text) ? JSON.stringify(parsed, null, 2) : text;
  } catch {
    return text;
  }
}

/** Copies; where the page may not, the text is selected, so that one can. */
export async function copyText(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied.");
  } catch {
    const selection = getSelection();
    selection.selectAllChildren(element);
    announce("Press Control and C to copy what is selected.");
  }
}
